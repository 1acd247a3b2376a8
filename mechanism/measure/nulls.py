"""Permutation nulls and control of false discoveries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped
from statsmodels.stats.multitest import multipletests

Alternative = Literal["greater", "less", "two-sided"]


def shuffles(
    items: int, n_perm: int, seed: int, strata: Shaped[np.ndarray, "item"] | None = None
) -> Iterator[Int[np.ndarray, "item"]]:
    """Permutations of `0..items-1`; with `strata`, items change places only within their stratum."""
    rng = np.random.default_rng(seed)
    codes = np.zeros(items, dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(int(codes.max(initial=-1)) + 1)]
    for _ in range(n_perm):
        order = np.arange(items)
        for group in members:
            order[group] = rng.permutation(group)
        yield order


@dataclass(frozen=True)
class PermutationTest:
    """What every test by permutation has.

    Attributes:
        n_perm: permutations; seed: of the permutations.
    """

    n_perm: int = 2000
    seed: int = 0

    def draws(
        self,
        statistic: Callable[[Int[np.ndarray, "item"]], Any],
        items: int,
        strata: Shaped[np.ndarray, "item"] | None = None,
    ) -> Float[np.ndarray, "draw *cell"]:
        """The statistic of each order of the items; see `shuffles`."""
        return np.array([statistic(order) for order in shuffles(items, self.n_perm, self.seed, strata)], np.float64)


def permutation_p(
    observed: Float[np.ndarray, "*cell"], draws: Float[np.ndarray, "draw *cell"], alternative: Alternative = "greater"
) -> Float[np.ndarray, "*cell"]:
    """Permutation p-values, the observed value counted among the draws, so never 0; NaN where a value is NaN.

    Two-sided is twice the smaller side, at most 1. Draws within rounding error of the observed value count as ties.

    Raises:
        ValueError: no draws.
    """
    if not len(draws):
        raise ValueError("a permutation test needs at least one draw")
    slack = 1e-12 + 1e-9 * np.abs(observed)
    upper = (1 + (draws >= observed - slack).sum(0)) / (len(draws) + 1)
    lower = (1 + (draws <= observed + slack).sum(0)) / (len(draws) + 1)
    sides = {"greater": upper, "less": lower, "two-sided": np.minimum(1, 2 * np.minimum(upper, lower))}
    known = ~np.isnan(observed) & ~np.isnan(draws).any(0)
    return np.asarray(np.where(known, sides[alternative], np.nan))


def false_discovery(p: Float[np.ndarray, "*cell"]) -> Float[np.ndarray, "*cell"]:
    """P-values adjusted over all cells at once (Benjamini-Hochberg: independent or positively dependent cells), so that
    `q <= a` holds the false discovery rate at `a`; NaN stays NaN."""
    known = ~np.isnan(p)
    q = np.full(p.shape, np.nan)
    if known.any():
        q[known] = multipletests(p[known], method="fdr_bh")[1]
    return q
