"""Null and intervals of a measure of specialisation: documents relabelled, documents resampled."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Shaped

from .documents import Documents, Domains
from .domain_table import Metric, labelled
from .nulls import false_discovery, permutation_p, shuffles


@dataclass(frozen=True)
class LabelNull:
    """Null of a measure: the documents keep their routing and length, their domain labels are permuted; one-sided.

    Attributes:
        n_perm: permutations; all are held in memory, 8 bytes for each cell. No cell's p-value is below
            1 / (n_perm + 1), so with many cells and few specialists `q` needs many permutations; `p_family` does not.
        seed: of the permutations.
    """

    n_perm: int = 999
    seed: int = 0

    def __call__(
        self, documents: Documents, metric: Metric, strata: Shaped[np.ndarray, "document"] | None = None
    ) -> xr.Dataset:
        """Each cell's `value`, `null_mean`, `null_std`, `z`, `p`, `q` (false discovery rate over all cells) and
        `p_family` (against the largest `z` of all cells, Westfall and Young 1993: family-wise error).

        A cell that no permutation changes, such as an unused expert, is not tested: NaN.

        Args:
            strata: permute labels only within these groups, such as languages, whose routing differs by itself.

        Raises:
            ValueError: the measure needs what was not recorded.
        """
        return self.test(documents, metric(Domains(documents)), self.draws(documents, metric, strata))

    def test(self, documents: Documents, value: np.ndarray, draws: np.ndarray) -> xr.Dataset:
        """Values of cells against `draws` of them; see `__call__`."""
        mean, spread = draws.mean(0), draws.std(0)
        moving = spread > 1e-12
        p = np.where(moving, permutation_p(value, draws), np.nan)
        z, ranked = (np.where(moving, (v - mean) / np.where(moving, spread, 1), np.nan) for v in (value, draws))
        found = {"value": value, "null_mean": mean, "null_std": spread, "z": z, "p": p}
        extreme = np.where(np.isnan(ranked), -np.inf, ranked).reshape(len(draws), -1).max(1)
        family = permutation_p(z, np.broadcast_to(extreme.reshape(-1, *[1] * z.ndim), draws.shape))
        found |= {"q": false_discovery(p), "p_family": family}
        return xr.Dataset({name: labelled(documents, values) for name, values in found.items()})

    def draws(
        self, documents: Documents, metric: Metric, strata: Shaped[np.ndarray, "document"] | None = None
    ) -> Shaped[np.ndarray, "draw layer expert *domain"]:
        """The measure under each permutation of the labels; the same permutations for every measure."""
        names = np.arange(len(documents.names))[:, None]
        orders = shuffles(len(documents.codes), self.n_perm, self.seed, strata)
        relabelled = ((documents.codes[order] == names).astype(np.float64) for order in orders)
        return np.stack([metric(Domains(documents, own)) for own in relabelled])


@dataclass(frozen=True)
class DocumentBootstrap:
    """Percentile intervals of a measure, documents resampled within their domains.

    Sampling noise raises measures that cannot be negative (certainty, CWAS, information), in resamples once more: their
    intervals may exclude 0, or lie above the value, where there is no specialisation. `LabelNull` decides that.

    Attributes:
        confidence: coverage of the interval; n_boot: resamples, held in memory; seed: of the resampling.
    """

    confidence: float = 0.95
    n_boot: int = 1000
    seed: int = 0

    def __call__(self, documents: Documents, metric: Metric) -> xr.Dataset:
        """Each cell's `value`, `low` and `high`. An expert unused in a resample has no share there: the interval is
        over the other resamples, NaN if there are none.

        Raises:
            ValueError: the measure needs what was not recorded, or a domain has a single document.
        """
        draws = self.draws(documents, metric)
        value, empty = metric(Domains(documents)), np.isnan(draws).all(0)
        tail = (1 - self.confidence) / 2
        bounds = np.nanquantile(np.where(empty, 0, draws), [tail, 1 - tail], axis=0)
        found = {"value": value} | {n: np.where(empty, np.nan, b) for n, b in zip(("low", "high"), bounds, strict=True)}
        return xr.Dataset({name: labelled(documents, values) for name, values in found.items()})

    def draws(self, documents: Documents, metric: Metric) -> Shaped[np.ndarray, "draw layer expert *domain"]:
        """The measure on each resample; the same resamples for every measure.

        Raises:
            ValueError: see `__call__`.
        """
        own = Domains(documents).multiplicity
        counts = own.sum(1).astype(np.int64)
        if (counts < 2).any():
            raise ValueError(f"an interval needs two documents of each domain: {documents.names[counts < 2].tolist()}")
        rng = np.random.default_rng(self.seed)
        resampled = (
            np.stack([rng.multinomial(n, row / n) for n, row in zip(counts, own, strict=True)]).astype(np.float64)
            for _ in range(self.n_boot)
        )
        return np.stack([metric(Domains(documents, weights)) for weights in resampled])
