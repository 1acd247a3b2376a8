"""What learning one more language needs and costs: numbers for claims P5 and P6, judged in `claims`."""

import numpy as np
import pandas as pd

from ...measure.evidence import Evidence
from .grid import BASE, GLIMPSED
from .tables import Experiment


def learner(x: Experiment) -> str:
    """The cell whose models learn the new language: those that have read a little of it where all are made, else those
    that have read none."""
    return GLIMPSED if GLIMPSED in x.grid.cells and x.grid.complete(GLIMPSED) else BASE


def adaptation(x: Experiment) -> pd.DataFrame:
    """Losses along adaptation: `seed`, `method`, `tuned`, `share` of all parameters, `step`, `new` (loss on the new
    language) and `old` (mean loss on the others)."""
    cell = learner(x)
    table = x.csv(cell, "adapt.csv")
    table["loss"] = table["bits"] / table["bytes"]
    table["side"] = np.where(table["lang"] == x.grid.new_language, "new", "old")
    keys = ["seed", "method", "tuned", "step"]
    found = table.pivot_table(index=keys, columns="side", values="loss", aggfunc="mean").reset_index()
    return found.assign(share=found["tuned"] / x.made[cell][0].result()["parameters"])


def rates(x: Experiment) -> pd.DataFrame:
    """Rows are methods of adaptation, columns their peak rates by seed."""
    table = x.csv(learner(x), "adapt.csv")
    if "rate" not in table:
        table["rate"] = x.grid.adaptation.lr
    return table.groupby(["method", "seed"], sort=False)["rate"].first().unstack()


def reached(x: Experiment, most: float) -> Evidence:
    """P5: fall of the loss on the new language by the best method that tunes at most a share of the parameters, over
    the fall by tuning everything."""
    table = adaptation(x)
    ordered = table.sort_values("step").groupby(["seed", "method", "share"])["new"]
    falls = (ordered.first() - ordered.last()).reset_index(name="fall")
    full = falls[falls["method"] == "all"].set_index("seed")["fall"]
    return x.seed_mean((falls[falls["share"] <= most].groupby("seed")["fall"].max() / full).to_numpy())


def embedding_share(x: Experiment) -> float:
    """Share of all parameters that the word embedding has."""
    share = adaptation(x).groupby("method")["share"].first()
    return float(share["experts 2 + embedding"] - share["experts 2"])


def retained(x: Experiment) -> Evidence:
    """P6: share of the rise on earlier languages that freezing avoids at equal fall on the new one; see
    `at_equal_fall`."""
    table = at_equal_fall(x)
    same = int(((table["avoided"] > 0) == (table["avoided, measured"] > 0)).sum())
    steps = x.seed_mean(table["avoided at the last step"].to_numpy())
    note = (
        f"at equal steps, with less learnt, freezing avoids {steps.estimate:.0%} [{steps.low:.0%}, {steps.high:.0%}]; "
        f"in {same} of {len(table)} seeds the sign is that without interpolation"
    )
    return x.seed_mean(table["avoided"].to_numpy()).against(note=note)


def at_equal_fall(x: Experiment, part: float = 1.0) -> pd.DataFrame:
    """The rise on earlier languages where tuning two experts a layer and tuning everything have brought the same fall
    on the new one: part of the smaller of the two final falls.

    Returns:
        A row a seed: `fall`; the rise by each method's name; `avoided`, the share of the free method's rise that the
        frozen one does not have; `avoided, measured`, the same with the free method's rise at its first measured point
        beyond the fall, which is no smaller; `avoided at the last step`.

    Raises:
        ValueError: in some seed a method brings no fall, or was not measured near the equal fall (see `_rise_at`),
            or tuning everything forgot nothing, so that there is nothing to avoid.
    """
    frozen, free = "experts 2", "all"
    table, rows = adaptation(x), {}
    for seed, own in table.groupby("seed"):
        paths = {name: own[own["method"] == name].sort_values("step") for name in (frozen, free)}
        falls = {name: (path["new"].iloc[0] - path["new"]).to_numpy() for name, path in paths.items()}
        rises = {name: (path["old"] - path["old"].iloc[0]).to_numpy() for name, path in paths.items()}
        equal = part * min(fall[-1] for fall in falls.values())
        rise = {name: _rise_at(equal, falls[name], rises[name], f"{name}, seed {seed}") for name in paths}
        if rise[free] <= 0:
            raise ValueError("tuning everything forgot nothing: there is nothing to avoid")
        beyond = rises[free][falls[free] >= equal][0]
        ends = {"avoided": rise[free], "avoided, measured": beyond}
        rows[seed] = {"fall": equal, **rise, **{name: 1 - rise[frozen] / end for name, end in ends.items()}}
        rows[seed]["avoided at the last step"] = 1 - rises[frozen][-1] / rises[free][-1]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")


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
