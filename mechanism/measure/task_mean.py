"""Mean over tasks, each task counting equally, with documents resampled within tasks."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Shaped

from .evidence import Evidence
from .statistics import ClusterBootstrap

ByTask = Mapping[str, Shaped[np.ndarray, "item"]]


@dataclass(frozen=True)
class TaskMean:
    """Mean over tasks of the mean over a task's items; for a gain the items' differences, which makes it paired.

    Attributes:
        bootstrap: over the documents of a task, independently of the other tasks.
    """

    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)

    def __call__(self, values: ByTask, clusters: ByTask) -> Evidence:
        """The mean and its interval; `n` counts documents.

        Args:
            values: of the items of each task; clusters: label of each item's document, by task.

        Raises:
            ValueError: no tasks, or a task without items.
        """
        draws = self.draws(values, clusters)
        tail = (1 - self.bootstrap.confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        mean = float(np.mean([np.mean(own) for own in values.values()]))
        return Evidence(mean, float(low), float(high), sum(len(np.unique(clusters[task])) for task in values))

    def draws(self, values: ByTask, clusters: ByTask) -> Float[np.ndarray, "draw"]:
        """The mean in each resample."""
        if not values:
            raise ValueError("no tasks: a mean over tasks needs at least one")
        own = [
            replace(self.bootstrap, seed=self.bootstrap.seed + i).draws(values[task], clusters=clusters[task])
            for i, task in enumerate(values)
        ]
        return np.asarray(np.mean(own, axis=0))
