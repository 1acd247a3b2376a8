"""Do the members of a group lie together? Neighbourhood purity and silhouette against permuted membership."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from .nulls import PermutationTest, permutation_p


class Grouping(NamedTuple):
    """A statistic of a group: its value, mean and 95th percentile under permutation, p-value, and the group's size."""

    value: float
    mean: float
    null: float
    p: float
    n: int


def cosine_distance(points: Float[np.ndarray, "item d"]) -> Float[np.ndarray, "item item"]:
    """`1 - cosine` of all pairs.

    Raises:
        ValueError: a point that is not finite, or zero.
    """
    size = np.linalg.norm(points, axis=1, keepdims=True)
    if not np.isfinite(points).all() or not (size > 0).all():
        raise ValueError("a direction needs a finite point away from zero: leave the others out, and say so")
    unit = points / size
    distance = 1 - np.clip(unit @ unit.T, -1, 1)
    np.fill_diagonal(distance, 0)
    return np.asarray((distance + distance.T) / 2)


def purity(order: Shaped[np.ndarray, "item item"], member: Bool[np.ndarray, "item"], neighbours: int) -> float:
    """Share of members among the nearest neighbours of a member; `order` is each item's others from near to far."""
    return float(member[order[member, :neighbours]].mean())


def silhouette(distance: Float[np.ndarray, "item item"], member: Bool[np.ndarray, "item"]) -> float:
    """Mean silhouette of the members, the others being the other group: -1 to 1, above 0 if members are closer to
    members (Rousseeuw 1987)."""
    rows = distance[member]
    inside = rows[:, member].sum(1) / (member.sum() - 1)
    outside = rows[:, ~member].mean(1)
    return float(((outside - inside) / np.maximum(np.maximum(inside, outside), 1e-300)).mean())


def standardised(
    similarity: Float[np.ndarray, "item item"], strata: Shaped[np.ndarray, "item"]
) -> Float[np.ndarray, "item item"]:
    """Similarities of pairs less the mean of all pairs of the same two strata, in their standard deviations; 0 on the
    diagonal, and where such pairs do not differ."""
    found = np.zeros(similarity.shape)
    for first in np.unique(strata):
        for second in np.unique(strata):
            block = np.ix_(strata == first, strata == second)
            own = similarity[block]
            pairs = own[~np.eye(len(own), dtype=bool)] if first == second else own.ravel()
            if len(pairs) and (spread := pairs.std()) > 1e-12:
                found[block] = (own - pairs.mean()) / spread
    np.fill_diagonal(found, 0)
    return found


def together(values: Float[np.ndarray, "item item"], chosen: Shaped[np.ndarray, "member"]) -> float:
    """Mean over pairs of distinct items among those chosen by number, perhaps repeatedly; NaN without a pair."""
    own = values[np.ix_(chosen, chosen)][chosen[:, None] != chosen]
    return float(own.mean()) if len(own) else np.nan


@dataclass(frozen=True)
class GroupTest(PermutationTest):
    """Purity and silhouette of a group against permutations of membership.

    Attributes:
        neighbours: of each member.
    """

    neighbours: int = 5

    def __call__(
        self,
        distance: Float[np.ndarray, "item item"],
        member: Bool[np.ndarray, "item"],
        strata: Shaped[np.ndarray, "item"] | None = None,
    ) -> dict[str, Grouping]:
        """`purity` and `silhouette`.

        Args:
            strata: membership changes places only within these (layers), which asks for more than they explain.

        Raises:
            ValueError: fewer than two members, or no more items than neighbours.
        """
        if member.sum() < 2 or len(member) <= self.neighbours or member.all():
            raise ValueError("a group needs two members, others beside them, and more items than neighbours")
        far = distance + np.diag(np.full(len(distance), np.inf))
        order = np.argsort(far, axis=1, kind="stable")

        def both(own: np.ndarray) -> tuple[float, float]:
            return purity(order, own, self.neighbours), silhouette(distance, own)

        value = both(member)
        draws = self.draws(lambda order: both(member[order]), len(member), strata)
        p = permutation_p(np.array(value), draws)
        return {
            name: Grouping(
                value[i], float(draws[:, i].mean()), float(np.quantile(draws[:, i], 0.95)), float(p[i]),
                int(member.sum()),
            )
            for i, name in enumerate(("purity", "silhouette"))
        }  # fmt: skip
