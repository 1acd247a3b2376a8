"""What learning one more language needs and costs: numbers for claims P5 and P6, judged in `claims`."""

import numpy as np
import pandas as pd

from ...measure.evidence import Evidence
from .grid import BASE
from .tables import Experiment

ENOUGH = 0.9


def adaptation(x: Experiment) -> pd.DataFrame:
    """Losses along adaptation: `seed`, `method`, `tuned`, `share` of all parameters, `step`, `new` (loss on the new
    language) and `old` (mean loss on the others)."""
    table = x.csv(BASE, "adapt.csv")
    table["loss"] = table["bits"] / table["bytes"]
    table["side"] = np.where(table["lang"] == x.grid.new_language, "new", "old")
    keys = ["seed", "method", "tuned", "step"]
    found = table.pivot_table(index=keys, columns="side", values="loss", aggfunc="mean").reset_index()
    return found.assign(share=found["tuned"] / x.made[BASE][0].result()["parameters"])


def needed_share(x: Experiment) -> Evidence:
    """P5: smallest share of parameters that reaches 90 % of the fall by tuning everything; the interval is the
    range over seeds."""
    losses = adaptation(x).sort_values("step").groupby(["seed", "method", "share"])["new"]
    falls = (losses.first() - losses.last()).rename("fall").reset_index()
    by_seed = [_smallest(own) for _, own in falls.groupby("seed")]
    mean = falls.groupby("method", as_index=False)[["share", "fall"]].mean()
    return Evidence(_smallest(mean), min(by_seed), max(by_seed), len(by_seed))


def embedding_share(x: Experiment) -> float:
    """Share of all parameters that the word embedding has."""
    share = adaptation(x).groupby("method")["share"].first()
    return float(share["experts 2 + embedding"] - share["experts 2"])


def retained(x: Experiment) -> Evidence:
    """P6: share of the rise on earlier languages that freezing all but two experts avoids at equal fall on the new one,
    the smaller of the two final falls.

    Raises:
        ValueError: in some seed a method brings no fall, or was not measured near the equal fall (see `_rise_at`),
            or tuning everything forgot nothing, so that there is nothing to avoid.
    """
    frozen, free = "experts 2", "all"
    table, avoided = adaptation(x), []
    for seed, own in table.groupby("seed"):
        paths = {name: own[own["method"] == name].sort_values("step") for name in (frozen, free)}
        falls = {name: (path["new"].iloc[0] - path["new"]).to_numpy() for name, path in paths.items()}
        rises = {name: (path["old"] - path["old"].iloc[0]).to_numpy() for name, path in paths.items()}
        equal = min(fall[-1] for fall in falls.values())
        rise = {name: _rise_at(equal, falls[name], rises[name], f"{name}, seed {seed}") for name in paths}
        if rise[free] <= 0:
            raise ValueError("tuning everything forgot nothing: there is nothing to avoid")
        avoided.append(1 - rise[frozen] / rise[free])
    return x.seed_mean(avoided)


def _smallest(falls: pd.DataFrame) -> float:
    full = float(falls.loc[falls["method"] == "all", "fall"].iloc[0])
    return float(falls.loc[falls["fall"] >= ENOUGH * full, "share"].min())


def _rise_at(equal: float, falls: np.ndarray, rises: np.ndarray, told: str) -> float:
    """Rise where a path of adaptation first reaches a fall: between the two measured points around it, as a power law
    where both have risen, else linearly.

    Raises:
        ValueError: there is no such fall, or no measured point from half of it to it, or none from it to twice.
    """
    if equal <= 0:
        raise ValueError("a method does not bring the loss on the new language down: there is no equal fall")
    reached, first = np.unique(np.maximum.accumulate(falls), return_index=True)
    after = int(np.argmax(reached >= equal))
    if reached[after] == equal:
        return float(rises[first[after]])
    x, y = reached[[after - 1, after]], rises[first[[after - 1, after]]]
    if x[0] < equal / 2 or x[1] > 2 * equal:
        raise ValueError(
            f"the equal fall, {equal:.2f}, was not measured closely enough ({told}): the points around it are "
            f"{x[0]:.2f} and {x[1]:.2f}"
        )
    if (y > 0).all():
        return float(np.exp(np.interp(np.log(equal), np.log(x), np.log(y))))
    return float(np.interp(equal, x, y))
