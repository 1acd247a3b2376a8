"""Does what tokens select depend on where they stand? Slopes on position, for sets of experts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from .nulls import PermutationTest
from .seeds import Sampled
from .units import EXPERTS


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
    """Slope on position of the number of a set's experts that a token selects, relative to their mean number, less the
    same of matched experts: those of the same strata, in proportion.

    Attributes:
        n_boot: resamples of documents, and in each of the experts of the set.
    """

    n_boot: int = 500

    def __call__(
        self,
        parts: Sequence[tuple[Moments, Bool[np.ndarray, "expert"]]],
        strata: Shaped[np.ndarray, "expert"],
    ) -> Sampled:
        """Mean over the parts, each with its own experts (chosen on other documents, say), its draws, and its chance
        when experts are exchanged within strata.

        Args:
            strata: of layer and frequency.

        Raises:
            ValueError: no expert of a part is ever selected, or all tokens stand at one position.
        """
        value = float(np.subtract(*relative_slopes(parts, strata)))
        if not np.isfinite(value):
            raise ValueError("no token selects any of the experts: no slope is defined")
        rng = np.random.default_rng(self.seed)
        draws = []
        for _ in range(self.n_boot):
            each = [
                (m.slopes(rng.multinomial(len(m.tokens), np.full(len(m.tokens), 1 / len(m.tokens))).astype(float)), own)
                for m, own in parts
            ]
            again = [rng.choice(np.flatnonzero(own), own.sum()) for _, own in parts]
            draws.append(np.mean([_relative(fit, at) - _relative(fit, _expected(own, strata))
                                  for (fit, own), at in zip(each, again, strict=True)]))  # fmt: skip
        fits = [m.slopes(np.ones(len(m.tokens))) for m, _ in parts]
        matched = np.mean([_relative(fit, _expected(own, strata)) for fit, (_, own) in zip(fits, parts, strict=True)])

        def exchanged(order: np.ndarray) -> float:
            each = zip(fits, parts, strict=True)
            return float(np.mean([_relative(fit, np.flatnonzero(own[order])) for fit, (_, own) in each]) - matched)

        chance = self.draws(exchanged, len(strata), strata)
        drawn, null = (own[np.isfinite(own)] for own in (np.array(draws), chance))
        fewest = min(min(len(m.tokens), int(own.sum())) for m, own in parts)
        return Sampled(value, drawn, fewest, null, EXPERTS)


def relative_slopes(
    parts: Sequence[tuple[Moments, Bool[np.ndarray, "expert"]]], strata: Shaped[np.ndarray, "expert"]
) -> tuple[float, float]:
    """Of the sets and of matched experts: mean over parts of the summed slopes over the summed means."""
    fits = [(m.slopes(np.ones(len(m.tokens))), own) for m, own in parts]
    own = np.mean([_relative(fit, np.flatnonzero(member)) for fit, member in fits])
    return float(own), float(np.mean([_relative(fit, _expected(member, strata)) for fit, member in fits]))


def _expected(member: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """`(expert,)` share of each expert's stratum that is of the set."""
    codes = np.unique(strata, return_inverse=True)[1]
    return np.asarray((np.bincount(codes, member) / np.bincount(codes))[codes])


def _relative(fit: tuple[np.ndarray, np.ndarray], experts: np.ndarray) -> float:
    """Summed slopes over summed means of experts: by number, with repetitions, or by weight."""
    slope, mean = (one @ experts if experts.dtype.kind == "f" else one[experts].sum() for one in fit)
    return float(slope / mean) if mean > 0 else np.nan
