"""Correlation over few units, plain or partial, with a bootstrap interval and a permutation p-value."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import rankdata

from .evidence import Evidence
from .nulls import permutation_p, shuffles

Method = Literal["pearson", "spearman"]


def residual(
    values: Float[np.ndarray, "*batch n"], design: Float[np.ndarray, "*designs n k"]
) -> Float[np.ndarray, "*batch n"]:
    """What least squares on the columns of `design`, one for all values or one for each, leaves of the values."""
    coefficients = np.linalg.pinv(design) @ values[..., None]
    return np.asarray(values - (design @ coefficients)[..., 0])


def with_intercept(columns: Float[np.ndarray, "*batch n k"]) -> Float[np.ndarray, "*batch n kk"]:
    """The columns behind a column of ones."""
    return np.concatenate([np.ones((*columns.shape[:-1], 1)), columns], -1)


@dataclass(frozen=True)
class Correlation:
    """Correlation of two quantities over units such as languages, given covariates if there are any.

    The partial correlation is the correlation of the residuals of both on the covariates, of ranks for `spearman`. The
    interval is the percentile bootstrap over units, ranks and residuals taken anew in each resample; with few units it
    tends to be too narrow. The p-value permutes residuals (Freedman and Lane 1983), or values without covariates.

    Attributes:
        method: `pearson` or `spearman`.
        confidence: coverage of the interval; n_boot: resamples; n_perm: permutations; seed: of both.
    """

    method: Method = "pearson"
    confidence: float = 0.95
    n_boot: int = 2000
    n_perm: int = 2000
    seed: int = 0

    def __call__(
        self,
        x: Shaped[np.ndarray, "n"],
        y: Shaped[np.ndarray, "n"],
        covariates: Shaped[np.ndarray, "n k"] | None = None,
        strata: Shaped[np.ndarray, "n"] | None = None,
    ) -> Evidence:
        """The correlation of `x` and `y`, its bootstrap interval, two-sided permutation p-value and number of units.

        Args:
            covariates: columns to hold constant; categories as indicator columns.
            strata: permute only within these groups (language families), which makes the p-value conditional on them.

        Raises:
            ValueError: a value that is not finite; fewer than four units beyond the covariates; a side that is
                constant, or that the covariates determine.
        """
        columns = np.zeros((len(x), 0)) if covariates is None else np.asarray(covariates, np.float64)
        data = np.concatenate([np.stack([x, y], -1).astype(np.float64), columns], -1)
        if not np.isfinite(data).all():
            raise ValueError("a correlation needs finite values: drop the units without them, and say so")
        if len(x) < 4 + columns.shape[1]:
            raise ValueError(f"{len(x)} units are too few for a correlation given {columns.shape[1]} covariates")
        value = self._partial(data)
        if np.isnan(value):
            raise ValueError("one side is constant, or determined by the covariates: no correlation is defined")
        p = permutation_p(np.asarray(value), self._null(data, strata), "two-sided")
        return Evidence.of_draws(value, self._resampled(data), self.confidence, len(x)).against(p=float(p))

    def value(self, data: Shaped[np.ndarray, "n columns"]) -> float:
        """Correlation of the first two columns given the others; NaN where none is defined."""
        return float(self._partial(np.asarray(data, np.float64)))

    def _partial(self, data: np.ndarray) -> np.ndarray:
        """Partial correlation of the first two columns given the others: `(..., n, 2 + k)` to `(...)`."""
        x, y, _, scale = self._residuals(data)
        return _cosine(x, y, scale)

    def _residuals(self, data: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Residuals of both sides, the design, and the values or ranks of both sides."""
        ranked = rankdata(data, axis=-2) if self.method == "spearman" else data
        design = with_intercept(ranked[..., 2:])
        x, y = (residual(ranked[..., i], design) for i in (0, 1))
        return x, y, design, ranked[..., :2]

    def _resampled(self, data: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        draws = self._partial(data[rng.integers(0, len(data), (self.n_boot, len(data)))])
        defined = draws[~np.isnan(draws)]
        if len(defined) < self.n_boot / 2:
            raise ValueError("most resamples are constant: too few different units for an interval")
        return np.asarray(defined)

    def _null(self, data: np.ndarray, strata: np.ndarray | None) -> np.ndarray:
        x, y, design, scale = self._residuals(data)
        orders = np.array(list(shuffles(len(y), self.n_perm, self.seed, strata)))
        moved = residual(y[orders], design)
        return _cosine(np.broadcast_to(x, moved.shape), moved, scale)


def _cosine(a: np.ndarray, b: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Cosine of residuals; NaN where one is nothing but rounding error of the values `(..., n, 2)` it comes from."""
    sizes = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    noise = 1e-9 * np.linalg.norm(scale, axis=-2)
    defined = (sizes[0] > noise[..., 0]) & (sizes[1] > noise[..., 1])
    product = np.where(defined, sizes[0] * sizes[1], 1)
    return np.asarray(np.where(defined, np.clip((a * b).sum(-1) / product, -1, 1), np.nan))
