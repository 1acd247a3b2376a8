"""Gain of an edit on items in groups: its interval, its p-value, and the gain that so many items could have shown."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .evidence import Evidence
from .nulls import permutation_p
from .power import Detectable
from .statistics import ClusterBootstrap


class Gain(NamedTuple):
    """A gain with its interval.

    Attributes:
        gain: its `n` counts clusters; p: two-sided; items: how many have a score in any group; draws: resampled gains.
    """

    gain: Evidence
    p: float
    items: int
    draws: np.ndarray

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return self.gain.n

    @property
    def detectable(self) -> float:
        """Smallest gain that a test with this interval finds with probability 0.8 at level 0.05."""
        return Detectable().difference(self.gain.low, self.gain.high)

    def needed(self, effect: float) -> int:
        """Items with which the smallest detectable gain would be this effect, in clusters as large as these."""
        return int(np.ceil(self.items * (self.detectable / effect) ** 2))


@dataclass(frozen=True)
class PairedGain:
    """Mean over groups of the mean gain over a group's items. Groups are languages or tasks.

    The p-value flips the signs of whole clusters: without an effect, the two scores of a cluster are exchangeable.

    Attributes:
        bootstrap: over clusters; n_perm: sign flips; seed: of the flips.
        parallel: groups have the same items, which are resampled for all of them at once; without it every item is of
            one group, and the clusters of each group are resampled on their own.
    """

    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)
    n_perm: int = 2000
    seed: int = 0
    parallel: bool = True

    def __call__(
        self,
        base: Float[np.ndarray, "group item"],
        edited: Float[np.ndarray, "group item"],
        clusters: Shaped[np.ndarray, "item"] | None = None,
    ) -> Gain:
        """The gain `edited - base`; items that a group lacks are NaN.

        Args:
            clusters: label of each item's cluster; items are their own clusters without it.

        Raises:
            ValueError: no group, or one without any item.
        """
        change = np.asarray(edited, np.float64) - np.asarray(base, np.float64)
        difference, weight = group_weighted(change)
        labels = np.arange(len(weight)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
        if not self.parallel:
            labels = labels + len(labels) * (~np.isnan(change)).argmax(0)
        at = weight > 0
        sums = np.bincount(np.unique(labels[at], return_inverse=True)[1], difference[at])
        if self.parallel:
            draws = self.bootstrap.draws(difference[at], weight[at], labels[at])
        else:
            draws = np.mean([self._own(i, own, labels) for i, own in enumerate(change)], axis=0)
        mean = np.mean([own[~np.isnan(own)].mean() for own in change])
        gain = Evidence.of_draws(mean, draws, self.bootstrap.confidence, len(sums))
        return Gain(gain, self._p(sums), int(at.sum()), draws)

    def _own(self, number: int, change: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Resampled means of one group."""
        known = ~np.isnan(change)
        bootstrap = replace(self.bootstrap, seed=self.bootstrap.seed + number)
        return bootstrap.draws(change[known], clusters=labels[known])

    def _p(self, values: np.ndarray) -> float:
        signs = np.random.default_rng(self.seed).choice([-1.0, 1.0], (self.n_perm, len(values)))
        return float(permutation_p(np.asarray(values.sum()), signs @ values, "two-sided"))


def group_weighted(
    values: Float[np.ndarray, "group item"],
) -> tuple[Float[np.ndarray, "item"], Float[np.ndarray, "item"]]:
    """Per item, the sum over groups of value times weight, and of the weights; a group's weights are alike and add up
    to 1 over groups, so the ratio of the sums over items is the mean of the groups' means.

    Raises:
        ValueError: no group, or one without any value.
    """
    known = ~np.isnan(values)
    if not len(values) or not known.any(1).all():
        raise ValueError("a group has no item at all, or there is no group: leave it out, and say so")
    weight = known / known.sum(1, keepdims=True) / len(values)
    return np.asarray(np.where(known, values * weight, 0).sum(0)), np.asarray(weight.sum(0))
