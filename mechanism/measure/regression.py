"""Nested regression: does a predictor explain anything that others do not?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from scipy.stats import f as f_distribution

from .correlation import residual, with_intercept
from .nulls import PermutationTest, permutation_p, shuffles


class Gain(NamedTuple):
    """Explained variance without and with the added predictors, the F statistic of the difference, its p-value by
    normal theory (`p_f`) and by permutation (`p`), and the number of units."""

    base: float
    full: float
    f: float
    p_f: float
    p: float
    n: int

    @property
    def value(self) -> float:
        """Share of variance that only the added predictors explain."""
        return self.full - self.base


class NestedRegression(PermutationTest):
    """Least squares of `y` on `base` against `base` and `added`; the null permutes the residuals of the smaller model
    (Freedman and Lane 1983).
    """

    def __call__(
        self,
        y: Shaped[np.ndarray, "n"],
        base: Shaped[np.ndarray, "n k"],
        added: Shaped[np.ndarray, "n m"],
        strata: Shaped[np.ndarray, "n"] | None = None,
    ) -> Gain:
        """The gain of `added`.

        Args:
            base: predictors of the smaller model (an intercept is added); added: what the larger one has besides.
            strata: permute residuals only within these groups.

        Raises:
            ValueError: a value that is not finite, a constant `y`, predictors that determine one another, or no more
                units than coefficients.
        """
        small = with_intercept(np.asarray(base, np.float64))
        large = np.concatenate([small, np.asarray(added, np.float64)], 1)
        y = np.asarray(y, np.float64)
        if not (np.isfinite(large).all() and np.isfinite(y).all()):
            raise ValueError("a regression needs finite values: drop the units without them, and say so")
        if len(y) <= large.shape[1] or np.linalg.matrix_rank(large) < large.shape[1]:
            raise ValueError("a nested regression needs more units than coefficients, and independent predictors")
        total = ((y - y.mean()) ** 2).sum()
        if np.ptp(y) == 0:
            raise ValueError("the response is constant: there is nothing to explain")
        left = residual(y, small)
        orders = np.array(list(shuffles(len(y), self.n_perm, self.seed, strata)))
        f, draws = _f(left, small, large), _f(left[orders], small, large)
        degrees = large.shape[1] - small.shape[1], len(y) - large.shape[1]
        p_f, p = float(f_distribution.sf(f, *degrees)), float(permutation_p(f, draws))
        before, after = (float(1 - (residual(y, design) ** 2).sum() / total) for design in (small, large))
        return Gain(before, after, float(f), p_f, p, len(y))


def _f(values: np.ndarray, small: np.ndarray, large: np.ndarray) -> np.ndarray:
    """F statistic of the columns that `large` has besides `small`, for each row of values."""
    errors = [(residual(values, design) ** 2).sum(-1) for design in (small, large)]
    degrees = large.shape[1] - small.shape[1], len(large) - large.shape[1]
    return np.asarray((errors[0] - errors[1]) / degrees[0] / np.maximum(errors[1] / degrees[1], 1e-300))
