"""Does what tokens select depend on where they stand? Slopes on position, for sets of experts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from .evidence import Evidence
from .nulls import permutation_p, shuffles


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
class PositionSlope:
    """Slope of how many of some experts a token selects on its position, over the mean number: with positions from 0 to
    1, the relative change from the first to the last token.

    Attributes:
        confidence: coverage of the interval, documents resampled; n_boot: resamples.
        n_perm: exchanges of experts within strata; seed: of both.
    """

    confidence: float = 0.95
    n_boot: int = 1000
    n_perm: int = 2000
    seed: int = 0

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
        value = self._value(parts)
        rng = np.random.default_rng(self.seed)
        draws = []
        for _ in range(self.n_boot):
            sizes = [len(m.tokens) for m, _ in parts]
            draws.append(self._value(parts, [rng.multinomial(n, np.full(n, 1 / n)).astype(float) for n in sizes]))
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        fits = [m.slopes(np.ones(len(m.tokens))) for m, _ in parts]
        exchanged = np.array([
            _relative([(fit, member[order]) for fit, (_, member) in zip(fits, parts, strict=True)])
            for order in shuffles(len(strata), self.n_perm, self.seed, strata)
        ])  # fmt: skip
        exchanged = exchanged[np.isfinite(exchanged)]
        p = float(permutation_p(np.asarray(value), exchanged, "less"))
        documents = sum(len(m.tokens) for m, _ in parts)
        return Evidence(value, float(low), float(high), documents, float(np.quantile(exchanged, 0.05)), p)

    @staticmethod
    def _value(parts: list[tuple[Moments, np.ndarray]], times: list[np.ndarray] | None = None) -> float:
        each = times or [np.ones(len(m.tokens)) for m, _ in parts]
        value = _relative([(m.slopes(t), member) for (m, member), t in zip(parts, each, strict=True)])
        if times is None and not np.isfinite(value):
            raise ValueError("no token selects any of the experts: no slope is defined")
        return value


def _relative(parts: list[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]) -> float:
    """Mean over parts of the summed slopes of the members over their summed means."""
    values = []
    for (slope, mean), member in parts:
        total = mean[member].sum()
        values.append(slope[member].sum() / total if total > 0 else np.nan)
    return float(np.mean(values))
