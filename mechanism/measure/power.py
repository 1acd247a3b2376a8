"""What effect a test of so many units could have detected."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import f as f_distribution
from scipy.stats import ncf, nct, norm, t


@dataclass(frozen=True)
class Detectable:
    """Smallest effects that a two-sided test finds with probability `power` at level `alpha`."""

    power: float = 0.8
    alpha: float = 0.05

    def correlation(self, n: int, covariates: int = 0) -> float:
        """Absolute (partial) correlation over `n` units, by Fisher's transformation (1921): its standard error is
        `1 / sqrt(n - covariates - 3)`. For rank correlations this is a little too optimistic.

        Raises:
            ValueError: fewer than four units beyond the covariates.
        """
        if n - covariates < 4:
            raise ValueError(f"{n} units are too few for a correlation given {covariates} covariates")
        return float(np.tanh(self._distance() / np.sqrt(n - covariates - 3)))

    def difference(self, low: float, high: float, confidence: float = 0.95, freedom: float = np.inf) -> float:
        """Absolute effect, for an estimate whose interval is `[low, high]`: Student's with so many degrees of freedom
        (noncentral t, other side neglected), without them taken as normal.

        Raises:
            ValueError: the interval is upside down.
        """
        if low > high:
            raise ValueError(f"interval [{low}, {high}] is upside down")
        error = (high - low) / (2 * t.ppf((1 + confidence) / 2, freedom))
        return float(self._distance(freedom) * error)

    def explained(self, n: int, base: int, added: int = 1) -> float:
        """Share of the variance that `base` predictors leave which `added` predictors have to explain, for the F test
        of a nested regression on `n` units (Cohen 1988, chapter 9: noncentrality `n f^2`).

        Raises:
            ValueError: no more units than coefficients.
        """
        left = n - 1 - base - added
        if left < 1:
            raise ValueError(f"{n} units are too few for {base} + {added} predictors")
        bar = f_distribution.isf(self.alpha, added, left)
        size = brentq(lambda f2: ncf.sf(bar, added, left, n * f2) - self.power, 1e-6, 1e3)
        return float(size / (1 + size))

    def _distance(self, freedom: float = np.inf) -> float:
        """Standard errors between no effect and a detectable one."""
        normal = float(norm.ppf(1 - self.alpha / 2) + norm.ppf(self.power))
        if np.isinf(freedom):
            return normal
        bar = t.ppf(1 - self.alpha / 2, freedom)
        return float(brentq(lambda shift: nct.sf(bar, freedom, shift) - self.power, 0, 2 * bar + 10 * normal))
