"""A quantity of models that differ in their training seed: seeds are resampled, then what each model was shown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .evidence import Evidence
from .nulls import Alternative, permutation_p


class Sampled(NamedTuple):
    """A quantity of one model.

    Attributes:
        estimate: the number; draws: the same on resamples of what the model was shown.
        chance: the same under a null, empty where there is none.
    """

    estimate: float
    draws: Float[np.ndarray, "draw"]
    chance: Float[np.ndarray, "null"] = np.zeros(0)


def over_seeds(
    models: Sequence[Sampled], seed: int = 0, confidence: float = 0.95, alternative: Alternative = "greater"
) -> Evidence:
    """Mean over models. In each resample models are drawn with replacement, and of all drawn ones the same resample of
    documents, as all have read the same; `n` counts models. The null is the 95th percentile (5th for `less`) of the
    mean over models of their chance, with its p-value. A single model has the interval of its own draws. An interval
    always holds its estimate.

    Args:
        models: the i-th draws of all are of the same documents; seed: of the resampling.

    Raises:
        ValueError: no models, or none with draws.
    """
    if not models or not all(len(one.draws) for one in models):
        raise ValueError("an interval over seeds needs models, each with draws")
    size = min(len(one.draws) for one in models)
    rng, draws = np.random.default_rng(seed), np.stack([one.draws[:size] for one in models])
    chosen = np.arange(len(models))[None] if len(models) == 1 else rng.integers(len(models), size=(size, len(models)))
    resampled = draws[chosen, np.arange(size)[:, None]].mean(1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    value = float(np.mean([one.estimate for one in models]))
    found = Evidence(value, min(value, float(low)), max(value, float(high)), len(models))
    if not all(len(one.chance) for one in models):
        return found
    least = min(len(one.chance) for one in models)
    chance = np.mean([one.chance[:least] for one in models], axis=0)
    null = float(np.quantile(chance, 0.05 if alternative == "less" else 0.95))
    return found.against(null, float(permutation_p(np.asarray(value), chance, alternative)))
