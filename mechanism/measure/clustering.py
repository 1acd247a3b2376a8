"""Hierarchical clustering of a distance matrix, and whether its groups are those of given labels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.cluster.hierarchy import cophenet, fcluster, linkage
from scipy.spatial.distance import squareform

from .nulls import PermutationTest, permutation_p


class Tree(NamedTuple):
    """A dendrogram: scipy's linkage matrix, and the cophenetic correlation (how well the tree keeps the distances)."""

    linkage: np.ndarray
    cophenetic: float


class LabelAssociation(NamedTuple):
    """Statistic of a label, its mean under the permutation null, p-value and number of items."""

    value: float
    null: float
    p: float
    n: int


def condensed(distance: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "pair"]:
    """Upper triangle of a distance matrix, row by row.

    Raises:
        ValueError: fewer than three items, or the matrix is not finite, symmetric and zero on the diagonal.
    """
    if len(distance) < 3:
        raise ValueError("a tree needs at least three items")
    if not np.isfinite(distance).all():
        raise ValueError("distances have to be finite: leave out items that share nothing with others")
    if not (np.allclose(distance, distance.T) and np.allclose(np.diag(distance), 0)):
        raise ValueError("a distance matrix is symmetric and zero on the diagonal")
    return np.asarray(squareform((distance + distance.T) / 2, checks=False))


def cluster(distance: Float[np.ndarray, "n n"]) -> Tree:
    """Agglomerative clustering by average linkage.

    The cophenetic correlation is NaN when all distances, or all heights of the tree, are equal.

    Raises:
        ValueError: see `condensed`.
    """
    pairs = condensed(distance)
    tree = linkage(pairs, "average")
    heights = cophenet(tree)
    known = np.ptp(pairs) > 0 and np.ptp(heights) > 0
    return Tree(tree, float(np.corrcoef(pairs, heights)[0, 1]) if known else float("nan"))


def cut(tree: Tree, groups: int) -> Int[np.ndarray, "n"]:
    """Number of each item's group, from 0, when the tree is cut into at most `groups` groups."""
    return np.asarray(fcluster(tree.linkage, groups, "maxclust").astype(np.int64) - 1)


class LabelTest(PermutationTest):
    """Do items with equal labels lie closer together than a permutation of the labels would have it?"""

    def __call__(
        self,
        distance: Float[np.ndarray, "n n"],
        labels: Shaped[np.ndarray, "n"],
        strata: Shaped[np.ndarray, "n"] | None = None,
    ) -> LabelAssociation:
        """Mean distance between pairs with different labels minus that of pairs with equal ones, against its null.

        Args:
            strata: permute labels only among items of one stratum: family within script asks whether families are
                closer than what their scripts explain. If labels are constant in every stratum, p is 1.

        Raises:
            ValueError: see `condensed`; no two items share a label, or all do.
        """
        codes = np.unique(labels, return_inverse=True)[1]
        if not 1 < codes.max() + 1 < len(codes):
            raise ValueError("a label needs at least two groups, one of them with two items, to be tested")
        pairs = condensed(distance)
        value = _apart(pairs, codes)
        draws = self.draws(lambda order: _apart(pairs, codes[order]), len(codes), strata)
        return LabelAssociation(value, float(draws.mean()), float(permutation_p(np.asarray(value), draws)), len(codes))


def _apart(pairs: np.ndarray, codes: np.ndarray) -> float:
    rows, columns = np.triu_indices(len(codes), 1)
    equal = codes[rows] == codes[columns]
    return float(pairs[~equal].mean() - pairs[equal].mean())
