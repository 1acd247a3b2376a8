"""Gain of an edit on parallel items: its interval, its p-value, and the gain that so many items could have shown."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .evidence import Evidence
from .nulls import permutation_p
from .power import Detectable
from .statistics import ClusterBootstrap


class Gain(NamedTuple):
    """A gain with its interval, its two-sided p-value, and the numbers of clusters and of items with a score in any
    language."""

    gain: Evidence
    p: float
    clusters: int
    items: int

    @property
    def detectable(self) -> float:
        """Smallest gain that a test with this interval finds with probability 0.8 at level 0.05."""
        return Detectable().difference(self.gain.low, self.gain.high)

    def needed(self, effect: float) -> int:
        """Items with which the smallest detectable gain would be this effect, in clusters as large as these."""
        return int(np.ceil(self.items * (self.detectable / effect) ** 2))


@dataclass(frozen=True)
class PairedGain:
    """Mean over languages of the mean gain over items, the same items resampled for all languages.

    The p-value flips the signs of whole clusters: without an effect, the two scores of a cluster are exchangeable.

    Attributes:
        bootstrap: over clusters; n_perm: sign flips; seed: of the flips.
    """

    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)
    n_perm: int = 2000
    seed: int = 0

    def __call__(
        self,
        base: Float[np.ndarray, "lang item"],
        edited: Float[np.ndarray, "lang item"],
        clusters: Shaped[np.ndarray, "item"] | None = None,
    ) -> Gain:
        """The gain `edited - base`; items that a language lacks are NaN.

        Args:
            clusters: label of each item's cluster; items are their own clusters without it.

        Raises:
            ValueError: a language without any item.
        """
        difference, weight = language_weighted(np.asarray(edited, np.float64) - np.asarray(base, np.float64))
        present = weight > 0
        labels = np.arange(len(weight)) if clusters is None else np.asarray(clusters)
        gain = self.bootstrap(difference[present], weight[present], labels[present])
        _, codes = np.unique(labels[present], return_inverse=True)
        sums = np.bincount(codes, difference[present])
        return Gain(gain, self._p(sums), len(sums), int(present.sum()))

    def _p(self, values: np.ndarray) -> float:
        signs = np.random.default_rng(self.seed).choice([-1.0, 1.0], (self.n_perm, len(values)))
        return float(permutation_p(np.asarray(values.sum()), signs @ values, "two-sided"))


def language_weighted(
    values: Float[np.ndarray, "lang item"],
) -> tuple[Float[np.ndarray, "item"], Float[np.ndarray, "item"]]:
    """Per item, the sum over languages of value times weight, and of the weights; a language's weights are alike and
    add up to 1 over languages, so the ratio of the sums over items is the mean of the languages' means.

    Raises:
        ValueError: a language without any value.
    """
    known = ~np.isnan(values)
    if not known.any(1).all():
        raise ValueError("a language has no item at all: leave it out, and say so")
    weight = known / known.sum(1, keepdims=True) / len(values)
    return np.asarray(np.where(known, values * weight, 0).sum(0)), np.asarray(weight.sum(0))
