"""Do gains of languages from an edit grow with their gap to a reference?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .evidence import Evidence
from .statistics import resampling_weights
from .units import Units


@dataclass(frozen=True)
class GapSlope:
    """Least-squares slope, over languages, of the gain from an edit on the gap to the reference before it.

    Gap and gain have to be measured on different items. On the same ones, an item that a language missed by chance adds
    to both, and the slope is positive without any effect. Error in the gap draws the slope towards 0. The interval
    resamples languages, and clusters of items on both sides.

    Attributes:
        confidence: coverage of the interval; n_boot: resamples; seed: of the resampling.
    """

    confidence: float = 0.95
    n_boot: int = 2000
    seed: int = 0

    def __call__(
        self,
        missing: Float[np.ndarray, "lang a"],
        gained: Float[np.ndarray, "lang b"],
        clusters: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Evidence:
        """The slope; `n` is the number of languages.

        Args:
            missing: per item, reference score minus the language's, NaN where either is missing.
            gained: per other item, edited score minus the language's own before the edit.
            clusters: labels of the items of both sides.

        Raises:
            ValueError: fewer than three languages, one without items, or gaps that are all the same.
        """
        if len(missing) < 3 or not all((~np.isnan(side)).any(1).all() for side in (missing, gained)):
            raise ValueError("a slope over languages needs three of them, each with items on both sides")
        labels = clusters or (np.arange(missing.shape[1]), np.arange(gained.shape[1]))
        x, y = self._means(missing, labels[0], self.seed + 1), self._means(gained, labels[1], self.seed + 2)
        if np.ptp(x[0]) < 1e-12:
            raise ValueError("all languages have the same gap: there is no slope")
        drawn = np.random.default_rng(self.seed).integers(0, len(missing), (self.n_boot, len(missing)))
        rows = np.arange(1, self.n_boot + 1)[:, None]
        slopes = _slope(x[rows, drawn], y[rows, drawn])
        found = Evidence.of_draws(_slope(x[:1], y[:1])[0], slopes[~np.isnan(slopes)], self.confidence, len(missing))
        names = [len(missing), *labels[0], "", *labels[1]]
        return found._replace(units=Units.drawn("languages and items", names, slopes, len(missing)))

    def _means(self, values: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
        """`(1 + n_boot, lang)` means over the items, first as they are, then with clusters resampled."""
        _, codes = np.unique(labels, return_inverse=True)
        member = np.eye(codes.max() + 1)[codes]
        known = ~np.isnan(values)
        tops, bottoms = np.where(known, values, 0) @ member, known.astype(np.float64) @ member
        weights = resampling_weights(member.shape[1], self.n_boot, seed)
        weights = np.concatenate([np.ones((1, member.shape[1]), dtype=weights.dtype), weights])
        with np.errstate(invalid="ignore"):
            return np.asarray((weights @ tops.T) / (weights @ bottoms.T))


def _slope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes of each row; NaN where the row's `x` do not differ."""
    centred = x - x.mean(1, keepdims=True)
    squares = (centred**2).sum(1)
    products = (centred * (y - y.mean(1, keepdims=True))).sum(1)
    return np.asarray(np.where(squares > 1e-12, products / np.maximum(squares, 1e-12), np.nan))
