"""What claims D1 to D8 are judged on: evidence, or the reason why there is none."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from ...measure.evidence import Evidence
from ...measure.seeds import over_seeds
from ...measure.specialists import Specialists
from .constant_compute import ComputeGrowth
from .domain_text import MODES
from .driver_experts import Swept
from .driver_tokens import DriverTokens
from .foretold import Foretold
from .tables import Space, overlapping

Answer = Evidence | str


def specialised(models: Sequence[Specialists]) -> Answer:
    """D1: the share of strong domain experts; the null is of shuffled labels."""
    share = np.mean([own.share for own in models])
    return over_seeds([own.sampled for own in models])._replace(note=f"{share:.0%} of the experts are domain experts.")


def concentrated(models: Sequence[Swept]) -> Answer:
    """D2: the smallest concentration over the ways of ablation; the null is that of the selections."""
    if any(set(own.config.modes) != set(MODES) for own in models):
        return "not all three ways of ablation were swept"
    found = [over_seeds([own.concentrated(mode) for own in models]) for mode in MODES]
    return min(found, key=lambda own: own.estimate).against(float(np.mean([own.busiest for own in models])))


def different(models: Sequence[Swept]) -> Answer:
    """D3: share of the drivers in the common language that are domain experts too."""
    if models[0].documents is None:
        return "there is a single domain, and no domain expert"
    return over_seeds([overlapping(own) for own in models])


def early(models: Sequence[DriverTokens]) -> Answer:
    """D4: relative slope on position less that of matched experts, the first token and super experts left out."""
    return over_seeds([own.slope() for own in models], alternative="less")


def clustered(models: Sequence[Space]) -> Answer:
    """D6: how much closer drivers are to one another than experts of the same layers."""
    if any(own.member.sum() < 2 for own in models):
        return "there are fewer than two drivers to compare"
    return over_seeds([own.together() for own in models])


def unpredicted(models: Sequence[Foretold]) -> Answer:
    """D7: Cohen's d at single tokens of the routing metric and layer with the largest, chosen on other documents."""
    if any(not own.probed for own in models):
        return "the model cannot be continued from after a layer: no expert was taken from a single token"
    return over_seeds([own.best() for own in models])


def constant(growth: ComputeGrowth) -> Answer:
    """D8: growth of measured time; the null is that of counted FLOPs."""
    found = growth.time._replace(units="its units are turns of a clock, which two runs do not share")
    return found.against(growth.flops, note="Null: the ratio of the counted FLOPs.")


def in_each(models: Sequence[tuple[Swept, xr.Dataset]]) -> dict[str, list[float]]:
    """The estimates of D2, D3, D4, D6 and D7 in each model by itself, NaN where there is none.

    Args:
        models: sweeps, and what was observed of their text.
    """
    quick = [(replace(swept, n_boot=2, n_perm=2), text) for swept, text in models]
    ways: dict[str, Callable[[Swept, xr.Dataset], Answer]] = {
        "D2": lambda swept, text: concentrated([swept]),
        "D3": lambda swept, text: different([swept]),
        "D4": lambda swept, text: early([DriverTokens(swept, text)]),
        "D6": lambda swept, text: clustered([Space.of(swept, text["mean_output"].values)]),
        "D7": lambda swept, text: unpredicted([Foretold(swept, text)]),
    }
    told = {claim: [answer(*one) for one in quick] for claim, answer in ways.items()}
    return {claim: [np.nan if isinstance(one, str) else one.estimate for one in own] for claim, own in told.items()}


def claims(**found: Any) -> dict[str, Answer]:
    """Answers to the claims that the given results decide, each a list of one result a training seed: `special` (domain
    experts) D1; `swept`, `tokens`, `space` and `foretold` (driver experts) D2 and D3, D4, D6, D7. And of one model:
    `reweighted` D5; `growth` (constant compute) D8."""
    ways: dict[str, dict[str, Callable[[Any], Answer]]] = {
        "special": {"D1": specialised},
        "swept": {"D2": concentrated, "D3": different},
        "tokens": {"D4": early},
        "reweighted": {"D5": lambda reweighted: reweighted.evidence()},
        "space": {"D6": clustered},
        "foretold": {"D7": unpredicted},
        "growth": {"D8": constant},
    }
    return {claim: answer(result) for name, result in found.items() for claim, answer in ways[name].items()}
