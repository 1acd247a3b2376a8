"""Random sets of experts that match a given set in layer, number and base frequency."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class MatchedExperts:
    """Random experts in place of chosen ones: for each, another expert of its layer, drawn from the nearest in base
    frequency; none of the chosen, none twice.

    Attributes:
        draws: number of sets; neighbours: how many of the nearest a replacement is drawn from; seed: of the draws.
    """

    draws: int = 50
    neighbours: int = 6
    seed: int = 0

    def __call__(
        self, chosen: Bool[np.ndarray, "layer expert"], base: Float[np.ndarray, "layer expert"]
    ) -> Bool[np.ndarray, "draw layer expert"]:
        """Sets with as many experts in each layer as the chosen one.

        Args:
            base: activation frequency on the base corpus.

        Raises:
            ValueError: a layer of which more than half of the experts are chosen.
        """
        crowded = np.flatnonzero(2 * chosen.sum(1) > chosen.shape[1])
        if len(crowded):
            raise ValueError(f"more than half of the experts in row {crowded[0]} are chosen: too few are left to match")
        rng = np.random.default_rng(self.seed)
        found = np.zeros((self.draws, *chosen.shape), dtype=bool)
        for draw in found:
            for row, own, frequency in zip(draw, chosen, base, strict=True):
                for expert in rng.permutation(np.flatnonzero(own)):
                    left = np.flatnonzero(~own & ~row)
                    distance = np.abs(frequency[left] - frequency[expert])
                    row[rng.choice(left[np.argsort(distance, kind="stable")[: self.neighbours]])] = True
        return found
