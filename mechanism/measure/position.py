"""Does what tokens select depend on where they stand? Slopes on position, for sets of experts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from .evidence import Evidence
from .nulls import PermutationTest, permutation_p


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over each document's tokens, from which slopes on position follow for any set of experts.

    Attributes:
        tokens: number; x, xx: sums of the position and its square; y, xy: sums of selections and of their products with
            the position, by expert.
    """

    tokens: Float[np.ndarray, "document"]
    x: Float[np.ndarray, "document"]
    xx: Float[np.ndarray, "document"]
    y: Float[np.ndarray, "document expert"]
    xy: Float[np.ndarray, "document expert"]

    def slopes(self, times: Float[np.ndarray, "document"]) -> tuple[np.ndarray, np.ndarray]:
        """Least-squares slope of each expert's selections on the position, and their mean, `(expert,)` each; documents
        count as often as `times` says."""
        n, x, xx = (times @ sums for sums in (self.tokens, self.x, self.xx))
        y, xy = times @ self.y, times @ self.xy
        spread = xx - x * x / n
        if not spread > 1e-12 * max(xx, 1e-300):
            raise ValueError("all tokens stand at one position: no slope is defined")
        return (xy - x * y / n) / spread, y / n


def moments(
    position: Shaped[np.ndarray, "token"],
    selected: Shaped[np.ndarray, "token expert"],
    document: Shaped[np.ndarray, "token"],
    kind: Shaped[np.ndarray, "token"] | None = None,
) -> Moments:
    """Sums by document.

    Args:
        position: of each token, any scale; selected: whether it selects each expert; document: number from 0.
        kind: with it, positions are taken relative to the mean position of their kind: slopes within kinds of token.

    Raises:
        ValueError: no tokens.
    """
    if not len(position):
        raise ValueError("no tokens: no slope is defined")
    x = np.asarray(position, np.float64)
    if kind is not None:
        codes = np.unique(kind, return_inverse=True)[1]
        x = x - (np.bincount(codes, x) / np.bincount(codes))[codes]
    size = int(document.max()) + 1
    belongs = np.zeros((size, len(x)))
    belongs[document, np.arange(len(x))] = 1
    chosen = np.asarray(selected, np.float64)
    return Moments(belongs.sum(1), belongs @ x, belongs @ (x * x), belongs @ chosen, belongs @ (x[:, None] * chosen))


@dataclass(frozen=True)
class PositionSlope(PermutationTest):
    """Slope of how many of some experts a token selects on its position, over the mean number: with positions from 0 to
    1, the relative change from the first to the last token.

    Attributes:
        confidence: coverage of the interval, documents resampled; n_boot: resamples.
        n_perm: exchanges of experts within strata; seed: of both.
    """

    confidence: float = 0.95
    n_boot: int = 1000

    def __call__(
        self,
        parts: list[tuple[Moments, Bool[np.ndarray, "expert"]]],
        strata: Shaped[np.ndarray, "expert"],
    ) -> Evidence:
        """The slope over all parts, each with its own experts: chosen on other documents, say. Its null is the 5th
        percentile and its p-value one-sided (so low or lower), both under exchange of experts; `n` counts documents.

        Args:
            strata: experts change places only within these (layer and frequency).

        Raises:
            ValueError: no expert of a part is ever selected, or all tokens stand at one position.
        """
        (whole, members), rng = zip(*parts, strict=True), np.random.default_rng(self.seed)
        sizes = [len(m.tokens) for m in whole]
        fits = [m.slopes(np.ones(n)) for m, n in zip(whole, sizes, strict=True)]
        value = _relative(fits, members)
        if not np.isfinite(value):
            raise ValueError("no token selects any of the experts: no slope is defined")
        resampled = []
        for _ in range(self.n_boot):
            times = [rng.multinomial(n, np.full(n, 1 / n)).astype(float) for n in sizes]
            resampled.append(_relative([m.slopes(t) for m, t in zip(whole, times, strict=True)], members))
        exchanged = self.draws(lambda order: _relative(fits, [m[order] for m in members]), len(strata), strata)
        exchanged = exchanged[np.isfinite(exchanged)]
        p = float(permutation_p(np.asarray(value), exchanged, "less"))
        found = Evidence.of_draws(value, resampled, self.confidence, sum(sizes))
        return found.against(float(np.quantile(exchanged, 0.05)), p)


def _relative(slopes: Sequence[tuple[np.ndarray, np.ndarray]], members: Sequence[np.ndarray]) -> float:
    """Mean over parts of the summed slopes of the members over their summed means."""
    values = []
    for (slope, mean), member in zip(slopes, members, strict=True):
        total = mean[member].sum()
        values.append(slope[member].sum() / total if total > 0 else np.nan)
    return float(np.mean(values))
