"""Share of a language's gap to a reference that an edit recovers."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from .statistics import ClusterBootstrap, Estimate


class Recovery(NamedTuple):
    """The gap `reference - base`, the gain `edited - base`, and the share `gain / gap`, each with its interval."""

    gap: Estimate
    gain: Estimate
    share: Estimate


@dataclass(frozen=True)
class RecoveredGap:
    """Recovered gap over parallel items, the same items resampled for all three.

    Attributes:
        bootstrap: over items, whole clusters resampled.
    """

    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)

    def __call__(
        self,
        base: Shaped[np.ndarray, "item"],
        edited: Shaped[np.ndarray, "item"],
        reference: Shaped[np.ndarray, "item"],
        clusters: np.ndarray | None = None,
    ) -> Recovery:
        """Scores of the items, higher is better; 1 is the whole gap, negative is harm.

        A share of a gap that may be nothing is no number: unless the gap's interval lies above 0, the share is NaN.

        Args:
            base, edited: the language without and with the edit; reference: the same items in the reference language,
                without the edit; clusters: label of each item's cluster.

        Raises:
            ValueError: no items, or a score that is not finite.
        """
        scores = np.stack([base, edited, reference]).astype(np.float64)
        if not np.isfinite(scores).all():
            raise ValueError("a score is not finite")
        gained, missing = scores[1] - scores[0], scores[2] - scores[0]
        gap, gain = (self.bootstrap(values, clusters=clusters) for values in (missing, gained))
        nothing = Estimate(float("nan"), float("nan"), float("nan"), gap.n)
        return Recovery(gap, gain, self.bootstrap(gained, missing, clusters) if gap.low > 0 else nothing)
