"""A quantity of models that differ in their training seed: seeds are resampled, then what each model was shown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .evidence import Evidence
from .nulls import Alternative, permutation_p
from .paired import SeedMean
from .units import OVER_SEEDS, Units


class Sampled(NamedTuple):
    """A quantity of one model.

    Attributes:
        estimate: the number; draws: the same on resamples of what the model was shown; units: how many units these
            resample, the fewest where there are several kinds.
        chance: the same under a null, empty where there is none.
        names: of the documents that draws resample, with how often each is read; or why no other model has the same.
    """

    estimate: float
    draws: Float[np.ndarray, "draw"]
    units: int
    chance: Float[np.ndarray, "null"] = np.zeros(0)
    names: Sequence[str] | str = ""


def over_seeds(models: Sequence[Sampled], alternative: Alternative = "greater") -> Evidence:
    """Mean over models, its 95 % interval as in `SeedMean`: seeds, and beneath them one resample of documents for all,
    as all have read the same; `n` counts models. A single model has the interval of its own draws, which says nothing
    of other seeds. An interval always holds its estimate. The null is the 95th percentile (5th for `less`) of the mean
    over models of their chance, with its p-value.

    Args:
        models: the i-th draws of all are of the same documents.

    Raises:
        ValueError: no models, or none with draws.
    """
    if not models or not all(len(one.draws) for one in models):
        raise ValueError("an interval over seeds needs models, each with draws")
    size, value = min(len(one.draws) for one in models), float(np.mean([one.estimate for one in models]))
    draws = np.mean([one.draws[:size] for one in models], axis=0)
    if len(models) == 1:
        own = Evidence.of_draws(value, draws, 0.95, 1)
        names = models[0].names
        units = names if isinstance(names, str) else Units.drawn("documents", names, draws, len(set(names)))
        found = own._replace(low=min(value, own.low), high=max(value, own.high), units=units)
    else:
        found = SeedMean()(
            np.array([one.estimate for one in models]), (draws, max(2, min(one.units for one in models)))
        )._replace(units=OVER_SEEDS)
    if not all(len(one.chance) for one in models):
        return found
    least = min(len(one.chance) for one in models)
    chance = np.mean([one.chance[:least] for one in models], axis=0)
    null = float(np.quantile(chance, 0.05 if alternative == "less" else 0.95))
    return found.against(null, float(permutation_p(np.asarray(value), chance, alternative)))
