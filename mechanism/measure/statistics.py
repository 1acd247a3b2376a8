"""Uncertainty: cluster bootstrap intervals of means and ratios, and the interval of a median."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import binom

from .evidence import Evidence


@dataclass(frozen=True)
class ClusterBootstrap:
    """Percentile bootstrap of `sum(numerator) / sum(denominator)`, whole clusters resampled with replacement.

    Attributes:
        confidence: coverage of the interval.
        n_boot: resamples.
        seed: of the resampling.
    """

    confidence: float = 0.95
    n_boot: int = 2000
    seed: int = 0

    def __call__(
        self,
        numerator: Shaped[np.ndarray, "item"],
        denominator: Shaped[np.ndarray, "item"] | None = None,
        clusters: np.ndarray | None = None,
    ) -> Evidence:
        """The ratio (the mean without a denominator) and its interval.

        Args:
            clusters: label of each item's cluster; items are their own clusters without it. `n` counts clusters.

        Raises:
            ValueError: no items.
        """
        tops, bottoms = _sums(numerator, denominator, clusters)
        draws = self._resample(tops, bottoms)
        return Evidence.of_draws(tops.sum() / bottoms.sum(), draws, self.confidence, len(tops))

    def draws(
        self,
        numerator: Shaped[np.ndarray, "item"],
        denominator: Shaped[np.ndarray, "item"] | None = None,
        clusters: np.ndarray | None = None,
    ) -> Float[np.ndarray, "draw"]:
        """The ratio in each resample; see `__call__`."""
        return np.asarray(self._resample(*_sums(numerator, denominator, clusters)))

    def _resample(self, tops: np.ndarray, bottoms: np.ndarray) -> np.ndarray:
        weights = resampling_weights(len(tops), self.n_boot, self.seed)
        return (weights @ tops) / (weights @ bottoms)


def median_interval(values: Float[np.ndarray, " item"], confidence: float = 0.95) -> Evidence:
    """The median between two order statistics (Conover 1999, section 3.2), which cover it with at least `confidence`
    whatever the distribution.

    Raises:
        ValueError: too few values for such an interval (at least six for 95 %), or one that is not finite.
    """
    ordered = np.sort(values)
    rank = int(binom.ppf((1 - confidence) / 2, len(ordered), 0.5))
    if rank < 1 or not np.isfinite(ordered).all():
        raise ValueError(f"{len(ordered)} values, all of them finite, give no {confidence:.0%} interval of a median")
    return Evidence(float(np.median(ordered)), float(ordered[rank - 1]), float(ordered[-rank]), len(ordered))


@lru_cache(maxsize=2)
def resampling_weights(size: int, n_boot: int, seed: int) -> np.ndarray:
    """`(n_boot, size)`: how often each unit is drawn in each resample. The same arguments give the same draws, so
    estimates over the same units are resampled together."""
    weights = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=n_boot)
    weights.flags.writeable = False
    return weights


def with_observed(weights: Shaped[np.ndarray, "draw unit"]) -> Float[np.ndarray, "draws unit"]:
    """Every unit once in a row before the resamples: what is computed from it is the estimate itself."""
    return np.concatenate([np.ones((1, weights.shape[1])), weights])


def _sums(
    numerator: np.ndarray, denominator: np.ndarray | None, clusters: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sums of both over clusters; items are their own clusters without labels."""
    tops = np.asarray(numerator, np.float64)
    if tops.size == 0:
        raise ValueError("no items: an estimate needs at least one")
    bottoms = np.ones_like(tops) if denominator is None else np.asarray(denominator, np.float64)
    if clusters is None:
        return tops, bottoms
    codes = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.bincount(codes, tops), np.bincount(codes, bottoms)
