"""Hierarchical clustering of a distance matrix, and whether its groups are those of given labels."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.cluster.hierarchy import cophenet, fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score

from .nulls import permutation_p, shuffles

Linkage = Literal["average", "complete", "single"]


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


def cluster(distance: Float[np.ndarray, "n n"], method: Linkage = "average") -> Tree:
    """Agglomerative clustering; methods that need Euclidean distances (Ward) are not offered.

    The cophenetic correlation is NaN when all distances, or all heights of the tree, are equal.

    Raises:
        ValueError: see `condensed`.
    """
    pairs = condensed(distance)
    tree = linkage(pairs, method)
    heights = cophenet(tree)
    known = np.ptp(pairs) > 0 and np.ptp(heights) > 0
    return Tree(tree, float(np.corrcoef(pairs, heights)[0, 1]) if known else float("nan"))


def cut(tree: Tree, groups: int) -> Int[np.ndarray, "n"]:
    """Number of each item's group, from 0, when the tree is cut into at most `groups` groups."""
    return np.asarray(fcluster(tree.linkage, groups, "maxclust").astype(np.int64) - 1)


@dataclass(frozen=True)
class LabelTest:
    """Do items with equal labels lie closer together than a permutation of the labels would have it?

    Attributes:
        statistic: `distance`: mean distance between pairs with different labels minus that of pairs with equal ones;
            `tree`: the same of the tree's cophenetic distances; `cut`: adjusted Rand index of the labels and the tree,
            cut into as many groups as there are labels.
        method: linkage of the tree; n_perm: permutations; seed: of the permutations.
    """

    statistic: Literal["distance", "tree", "cut"] = "distance"
    method: Linkage = "average"
    n_perm: int = 2000
    seed: int = 0

    def __call__(
        self,
        distance: Float[np.ndarray, "n n"],
        labels: Shaped[np.ndarray, "n"],
        strata: Shaped[np.ndarray, "n"] | None = None,
    ) -> LabelAssociation:
        """The statistic of the labels against its permutation null.

        Args:
            strata: permute labels only among items of one stratum: family within script asks whether families are
                closer than what their scripts explain. If labels are constant in every stratum, p is 1.

        Raises:
            ValueError: see `condensed`; no two items share a label, or all do.
        """
        codes = np.unique(labels, return_inverse=True)[1]
        if not 1 < codes.max() + 1 < len(codes):
            raise ValueError("a label needs at least two groups, one of them with two items, to be tested")
        reference = self._reference(distance, int(codes.max()) + 1)
        value = self._value(reference, codes)
        orders = shuffles(len(codes), self.n_perm, self.seed, strata)
        draws = np.array([self._value(reference, codes[order]) for order in orders])
        return LabelAssociation(value, float(draws.mean()), float(permutation_p(np.asarray(value), draws)), len(codes))

    def _reference(self, distance: np.ndarray, groups: int) -> np.ndarray:
        """What labels are held against: distances of pairs, or the items' groups."""
        if self.statistic == "distance":
            return condensed(distance)
        tree = cluster(distance, self.method)
        return cut(tree, groups) if self.statistic == "cut" else cophenet(tree.linkage)

    def _value(self, reference: np.ndarray, codes: np.ndarray) -> float:
        if self.statistic == "cut":
            return float(adjusted_rand_score(codes, reference))
        rows, columns = np.triu_indices(len(codes), 1)
        equal = codes[rows] == codes[columns]
        return float(reference[~equal].mean() - reference[equal].mean())


@dataclass(frozen=True)
class Mantel:
    """Correlation of two distance matrices over the same items, items of the second permuted (Mantel 1967).

    Attributes:
        n_perm: permutations; seed: of the permutations.
    """

    n_perm: int = 2000
    seed: int = 0

    def __call__(self, first: Float[np.ndarray, "n n"], second: Float[np.ndarray, "n n"]) -> LabelAssociation:
        """Pearson correlation of the pairs' distances; one-sided p-value for a positive one.

        Raises:
            ValueError: see `condensed`; one of the matrices is constant off its diagonal.
        """
        a, b = condensed(first), condensed(second)
        if np.ptp(a) == 0 or np.ptp(b) == 0:
            raise ValueError("all distances are equal: no correlation is defined")
        value = float(np.corrcoef(a, b)[0, 1])
        orders = shuffles(len(first), self.n_perm, self.seed)
        draws = np.array([np.corrcoef(a, condensed(second[np.ix_(o, o)]))[0, 1] for o in orders])
        return LabelAssociation(value, float(draws.mean()), float(permutation_p(np.asarray(value), draws)), len(first))
