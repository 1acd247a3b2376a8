"""Sets of experts by thresholded activation-frequency difference, and whether two sets overlap more than chance."""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import hypergeom

from .nulls import PermutationTest, permutation_p


def experts_above(difference: Float[np.ndarray, "*rest"], tau: float) -> Bool[np.ndarray, "*rest"]:
    """Experts whose activation-frequency difference exceeds `tau` (arXiv 2510.04694, section on eq. 3)."""
    return np.asarray(difference > tau)


class OverlapTest(NamedTuple):
    """Size of an intersection, its expectation by chance, and P(chance <= size), P(chance >= size)."""

    shared: int
    expected: float
    p_fewer: float
    p_more: float


def hypergeometric_overlap(
    first: Bool[np.ndarray, "layer expert"], second: Bool[np.ndarray, "layer expert"]
) -> OverlapTest:
    """Exact null: in each layer both sets keep their sizes and are otherwise drawn at random and independently.

    The intersections of the layers are hypergeometric; the distribution of their sum is their convolution.
    """
    experts = first.shape[1]
    sizes = list(zip(first.sum(1), second.sum(1), strict=True))
    pmfs = [hypergeom(experts, a, b).pmf(np.arange(min(a, b) + 1)) for a, b in sizes]
    pmf: np.ndarray = reduce(np.convolve, pmfs, np.ones(1))
    shared = int((first & second).sum())
    expected = float(sum(int(a) * int(b) for a, b in sizes) / experts)
    fewer, more = min(1.0, float(pmf[: shared + 1].sum())), min(1.0, float(pmf[shared:].sum()))
    return OverlapTest(shared, expected, fewer, more)


def frequency_strata(base: Float[np.ndarray, "layer expert"], bins: int) -> Int[np.ndarray, "layer expert"]:
    """Layer and quantile bin of the base activation frequency as one number: strata within which experts are exchanged.

    An expert that the base corpus always uses cannot gain `tau` for anything: without these strata such experts,
    outside both sets, make the two sets look more alike than they are.
    """
    ranks = base.argsort(1, kind="stable").argsort(1, kind="stable")
    return np.asarray(np.arange(len(base))[:, None] * bins + ranks * bins // base.shape[1])


class PermutedOverlap(PermutationTest):
    """Null by exchanging experts of the second set within strata."""

    def __call__(
        self,
        first: Bool[np.ndarray, "layer expert"],
        second: Bool[np.ndarray, "layer expert"],
        strata: Shaped[np.ndarray, "layer expert"] | None = None,
    ) -> OverlapTest:
        """Overlap against the null.

        Args:
            strata: label of each (layer, expert), see `frequency_strata`; the layers without it.
        """
        if strata is None:
            strata = np.broadcast_to(np.arange(len(first))[:, None], first.shape)
        a, b = first.ravel(), second.ravel()
        draws = self.draws(lambda order: (a & b[order]).sum(), a.size, strata.ravel())
        shared = np.array(float((a & b).sum()))
        fewer, more = (float(permutation_p(shared, draws, side)) for side in ("less", "greater"))
        return OverlapTest(int(shared), float(draws.mean()), fewer, more)


def overlap_curve(
    task: Float[np.ndarray, "layer expert"],
    languages: Float[np.ndarray, "lang layer expert"],
    taus: Sequence[float],
    permuted: PermutedOverlap | None = None,
    strata: Shaped[np.ndarray, "layer expert"] | None = None,
) -> pd.DataFrame:
    """Task experts and multilingual ones, above the threshold for any language, one row for each `tau`
    (arXiv 2510.04694).

    Columns: `tau`, `task` and `multilingual` (sizes of the sets), `shared`, `jaccard` (NaN for two empty sets), and of
    the hypergeometric null `expected`, `p_fewer`, `p_more`; with `permuted`, the same with the suffix `_permuted`. If
    `p_fewer` is not small at `shared = 0`, the sets are too small to show that they avoid each other.

    Args:
        task, languages: `frequency_difference` from one base corpus; its sampling error is in both. Languages are those
            other than the reference.
    """
    rows = []
    for tau in taus:
        first, second = experts_above(task, tau), np.any(experts_above(languages, tau), 0)
        union = int((first | second).sum())
        test = hypergeometric_overlap(first, second)
        row: dict[str, Any] = {"tau": tau, "task": int(first.sum()), "multilingual": int(second.sum())}
        row |= {"jaccard": test.shared / union if union else float("nan")} | test._asdict()
        if permuted is not None:
            drawn = permuted(first, second, strata)._asdict()
            row |= {f"{name}_permuted": drawn[name] for name in ("expected", "p_fewer", "p_more")}
        rows.append(row)
    return pd.DataFrame(rows)
