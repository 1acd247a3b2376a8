"""Effects of experts summed over text: means over domains and languages, concentration, and the experts on top."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from .seeds import Sampled


@dataclass(frozen=True, eq=False)
class Effects:
    """What each expert does to each sequence, summed over its tokens.

    Attributes:
        values: effect sums; tokens: of each sequence; cell: its domain and language; stratum: its domain, within which
            documents are drawn; document: label, the same for translations.
        by: what counts equally in means: every `domain`, and in it every language; or every `cell`, so that a domain
            counts as often as it has languages.

    Raises:
        ValueError: no sequences, one without tokens, a cell of two strata, or shapes that do not fit.
    """

    values: Float[np.ndarray, "sequence layer expert"]
    tokens: Shaped[np.ndarray, "sequence"]
    cell: Shaped[np.ndarray, "sequence"]
    stratum: Shaped[np.ndarray, "sequence"]
    document: Shaped[np.ndarray, "sequence"]
    by: Literal["domain", "cell"] = "domain"

    def __post_init__(self) -> None:
        if not len(self.values) or not (self.tokens > 0).all():
            raise ValueError("effects need sequences, each with a token")
        if not (self._domains.sum(0) == 1).all():
            raise ValueError("a cell is a language of one domain: its sequences are of several strata")

    @cached_property
    def _cells(self) -> np.ndarray:
        """`(cell, sequence)` membership."""
        codes = np.unique(self.cell, return_inverse=True)[1]
        return (codes == np.arange(codes.max() + 1)[:, None]).astype(np.float64)

    @cached_property
    def _domains(self) -> np.ndarray:
        """`(stratum, cell)` whether a cell is of the stratum."""
        codes = np.unique(self.stratum, return_inverse=True)[1]
        own = codes == np.arange(codes.max() + 1)[:, None]
        return (own.astype(np.float64) @ self._cells.T > 0).astype(np.float64)

    def _weights(self, filled: np.ndarray) -> np.ndarray:
        """What each cell counts for in the mean, `(cell,)`; nothing for one that is not filled. They sum to one."""
        if self.by == "cell":
            return filled / filled.sum()
        own = self._domains * filled
        sizes = own.sum(1)
        return np.asarray((own[sizes > 0] / sizes[sizes > 0, None]).mean(0))

    def mean(self, times: Float[np.ndarray, "sequence"] | None = None) -> Float[np.ndarray, "layer expert"]:
        """Mean effect per token: over the tokens of a cell, then over the languages of a domain, then over domains (see
        `by`); NaN where an ablation gave NaN.

        Args:
            times: how often each sequence counts; cells and domains that are left empty do not count.
        """
        each = self._cells if times is None else self._cells * times
        tokens = each @ self.tokens
        own = (self._weights(tokens > 0) / np.where(tokens > 0, tokens, 1)) @ each
        return np.asarray(np.tensordot(own, self.values, 1))

    def by_cell(self) -> tuple[list[str], Float[np.ndarray, "cell layer expert"]]:
        """Labels of the cells, and the mean effect per token in each."""
        sums = np.tensordot(self._cells, self.values, 1)
        return list(map(str, np.unique(self.cell))), sums / (self._cells @ self.tokens)[:, None, None]

    @property
    def names(self) -> list[str]:
        """The document of each sequence, unique over strata."""
        return [f"{s} {d}" for s, d in zip(self.stratum, self.document, strict=True)]

    @property
    def n_documents(self) -> int:
        """How many documents there are."""
        return len(set(self.names))

    @property
    def share(self) -> Float[np.ndarray, "sequence"]:
        """What a sequence's effect sum counts for in `mean`: `mean = sum over sequences of share * values`."""
        weights = self._weights(np.ones(len(self._cells), dtype=bool))
        return np.asarray((weights / (self._cells @ self.tokens)) @ self._cells)

    def resamples(self, n_boot: int, seed: int) -> Iterator[Float[np.ndarray, "sequence"]]:
        """How often each sequence counts when documents are drawn anew within their stratum."""
        rng, (members, owner) = np.random.default_rng(seed), self._documents
        for _ in range(n_boot):
            times = np.zeros(owner.max() + 1)
            for own in members:
                times[own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own)))
            yield times[owner]

    def halves(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Two halves of the documents of every stratum, as zeros and ones over sequences; the odd one of a stratum, or
        its only one, is in either.

        Raises:
            ValueError: a half is empty.
        """
        rng, (members, owner) = np.random.default_rng(seed), self._documents
        first = np.zeros(owner.max() + 1)
        for own in members:
            first[rng.permutation(own)[: (len(own) + int(rng.integers(2))) // 2]] = 1
        if first.all() or not first.any():
            raise ValueError("halves need two documents or more")
        return first[owner], 1 - first[owner]

    @cached_property
    def _documents(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Numbers of the documents of each stratum, and each sequence's document."""
        names, owner = np.unique(np.array([f"{s}\0{d}" for s, d in zip(self.stratum, self.document, strict=True)]),
                                 return_inverse=True)  # fmt: skip
        strata = np.array([name.split("\0")[0] for name in names])
        return [np.flatnonzero(strata == s) for s in np.unique(strata)], owner


def gini(values: Float[np.ndarray, "item"]) -> float:
    """Gini coefficient of values of at least 0: 0 if all are equal, near 1 if one has everything.

    Raises:
        ValueError: a negative value or NaN, or nothing above 0.
    """
    ordered = np.sort(values)
    if not (ordered >= 0).all() or not ordered.sum() > 0:
        raise ValueError("a Gini coefficient needs values of at least 0, one of them above it")
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def top_count(experts: int, share: float = 0.05) -> int:
    """How many experts the top `share` is: rounded up, at least one."""
    return max(1, math.ceil(share * experts - 1e-9))


def top_experts(
    effect: Float[np.ndarray, "layer expert"], count: int, left_out: Bool[np.ndarray, "layer expert"] | None = None
) -> Bool[np.ndarray, "layer expert"]:
    """The `count` experts with the largest effect, equal ones in order of layer and expert.

    Args:
        left_out: experts that do not take part.

    Raises:
        ValueError: fewer experts than `count`, or an effect that is not a number.
    """
    ranked = effect.ravel().copy()
    if left_out is not None:
        ranked[left_out.ravel()] = -np.inf
    if np.isnan(ranked).any():
        raise ValueError(f"{int(np.isnan(ranked).sum())} effects are not numbers: leave these experts out, and say so")
    if np.isfinite(ranked).sum() < count:
        raise ValueError(f"{count} experts asked for, {int(np.isfinite(ranked).sum())} take part")
    chosen = np.zeros(ranked.size, dtype=bool)
    chosen[np.argsort(-ranked, kind="stable")[:count]] = True
    return chosen.reshape(effect.shape)


def top_in_layers(
    effect: Float[np.ndarray, "layer expert"], share: float, left_out: Bool[np.ndarray, "layer expert"] | None = None
) -> Bool[np.ndarray, "layer expert"]:
    """The `share` of each layer's experts with the largest effect in it, see `top_count` and `top_experts`; none of a
    layer that is left out whole. How much a layer does as a whole picks nothing."""
    out = np.zeros(effect.shape, dtype=bool) if left_out is None else left_out
    rows = [
        top_experts(row[None], top_count(int((~own).sum()), share), own[None])[0] if not own.all() else own & False
        for row, own in zip(effect, out, strict=True)
    ]
    return np.stack(rows)


def times_equal(
    effect: Float[np.ndarray, "layer expert"],
    chosen: Bool[np.ndarray, "layer expert"],
    left_out: Bool[np.ndarray, "layer expert"],
) -> float:
    """How many times an equal share of their layer's effect the chosen experts have: mean over layers; 1 if all experts
    of a layer are alike. A layer without any effect has 1.

    Raises:
        ValueError: nothing has an effect.
    """
    kept = np.where(left_out, 0, effect)
    total, part = kept.sum(1), ~left_out
    if not total.any():
        raise ValueError("no expert has an effect: shares of nothing are not defined")
    at = part.any(1)
    equal = (chosen.sum(1)[at] / part.sum(1)[at]) * total[at]
    times = (kept * chosen).sum(1)[at] / np.where(equal > 0, equal, 1)
    return float(np.where(equal > 0, times, 1).mean())


@dataclass(frozen=True)
class Concentration:
    """Share of each layer's effect that its largest few experts have, in multiples of an equal share, chosen on one
    half of the documents and counted on the other, both ways, so that the choice does not flatter it.

    Attributes:
        share: of a layer's experts that count as largest.
        n_boot: resamples of documents; seed: of the halves and the resamples.
    """

    share: float = 0.05
    n_boot: int = 500
    seed: int = 0

    def __call__(self, effects: Effects, left_out: Bool[np.ndarray, "layer expert"] | None = None) -> Sampled:
        """The multiple, and its draws.

        Args:
            left_out: experts that neither are chosen nor count.

        Raises:
            ValueError: see `top_experts`, `times_equal` and `Effects.halves`.
        """
        out = np.zeros(effects.values.shape[1:], dtype=bool) if left_out is None else left_out
        halves = effects.halves(self.seed)
        draws = [
            self._crossed(effects, (halves[0] * times, halves[1] * times), out)
            for times in effects.resamples(self.n_boot, self.seed)
            if all((half * times).any() for half in halves)
        ]
        return Sampled(self._crossed(effects, halves, out), np.array(draws), effects.n_documents, names=effects.names)

    def _crossed(self, effects: Effects, halves: tuple[np.ndarray, np.ndarray], out: np.ndarray) -> float:
        means = [np.where(out, 0, effects.mean(half)) for half in halves]
        pairs = (means, means[::-1])
        each = [times_equal(counted, top_in_layers(chosen, self.share, out), out) for chosen, counted in pairs]
        return float(np.mean(each))


def inclusion(
    effects: Effects, share: float, left_out: Bool[np.ndarray, "layer expert"], n_boot: int = 500, seed: int = 0
) -> Float[np.ndarray, "layer expert"]:
    """Share of the resamples of documents in which each expert is among its layer's top, see `top_in_layers`."""
    kept = replace(effects, values=np.where(left_out, 0, effects.values))
    chosen = [top_in_layers(kept.mean(times), share, left_out) for times in kept.resamples(n_boot, seed)]
    return np.asarray(np.mean(chosen, 0))
