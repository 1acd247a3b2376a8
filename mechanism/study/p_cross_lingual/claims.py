"""On what claims P4 to P13 and P15 are judged, from the records of the cross-lingual grid."""

import numpy as np

from ...measure.evidence import Evidence
from ...measure.statistics import median_interval
from ..grid.records import Judges, judged
from .adaptation import embedding_share, learner, reached, retained
from .grid import BASE
from .tables import Experiment
from .thesis import needed, spared

LOADED, COSTS = 2.0, 1.025
"""Thresholds of P10's rule: load, and time of a step with the balance loss over that of one without."""
FEW, MORE = 0.02, 0.1
"""Shares of the parameters with which P5 is replicated, or partly so."""


def _read(x: Experiment) -> str:
    return f"runs of at most {x.grid.train['tokens'] / 1e6:g} million tokens"


def _p5(x: Experiment) -> Evidence:
    few, more = reached(x, FEW), reached(x, MORE)
    glimpse = x.grid.cells[learner(x)].glimpse
    stream = f"was {glimpse:.0%} of the stream" if glimpse else "was never in the stream"
    rate = "each method has its own rate" if glimpse else "one rate, not tuned, serves all methods"
    note = (
        f"up to {MORE:.0%} of the parameters reach {more.estimate:.0%} [{more.low:.0%}, {more.high:.0%}]; the new "
        f"language {stream}, only `all` and `experts 2 + embedding` may change the word embedding "
        f"({embedding_share(x):.0%} of the parameters), {rate}, in {x.grid.adaptation.steps} steps"
    )
    return few.against(more.low, note=note)


def _p7(x: Experiment) -> Evidence:
    kinds = "added", "concatenated"
    known = x.seed_mean(np.mean([x.information(kind) for kind in kinds], 0) / x.information("none") - 1)
    note = f"mutual information rises by {known.estimate:.0%} [{known.low:.0%}, {known.high:.0%}]"
    return x.gain("none", *kinds).against(known.low, note=note)


def _p8(x: Experiment) -> Evidence:
    fall = x.seed_mean(x.misrouting("dedicated") - x.misrouting("redundant"))
    cost, kept = (x.seed_mean(x.told_wrong(cell)) for cell in ("dedicated", "redundant"))
    price = -x.gain("dedicated", "redundant").estimate
    note = (
        f"where the id is wrong, loss rises by {cost.estimate:.0%} [{cost.low:.0%}, {cost.high:.0%}], with redundancy "
        f"by {kept.estimate:.0%}; where it is right, redundancy itself costs {price:.1%}"
    )
    return fall.against(cost.low, note=note)


def _p10(x: Experiment) -> Evidence:
    loads, ratios = x.load("unbalanced"), np.array(x.made[BASE][0].result()["balance_time"])
    found, time = x.seed_mean(loads[:, 0]), median_interval(ratios)
    others = loads[:, 1:].mean(0)
    note = (
        f"time {time.estimate:.3f} [{time.low:.3f}, {time.high:.3f}], median and 95 % interval of {time.n} recorded "
        f"turns; the expert that another language uses most has {others.mean():.1f} times the mean load, up to "
        f"{others.max():.1f}"
    )
    if time.low < COSTS <= time.high and found.low >= LOADED:
        other = "replicated" if time.estimate >= COSTS else "partly"
        note += f"; the timing does not decide, by its median the verdict would be *{other}*"
    return found.against(time.low, note=note)


def _p11(x: Experiment) -> Evidence:
    copies = x.gain("none half", "copied half")
    note = f"the copies alone bring {copies.estimate:.1%} [{copies.low:.1%}, {copies.high:.1%}]"
    return x.gain("copied half", "distilled half").against(x.gain("none", "distilled half").estimate, note=note)


def _p12(x: Experiment) -> Evidence:
    found, chance = (x.relative(x.difference("family", other), "dedicated") for other in ("dedicated", "random"))
    return found.against(chance.high, note=f"{chance.estimate:+.2%} against random groups")


def _p13(x: Experiment) -> Evidence:
    best = min(("alpha 0.3", "alpha 1"), key=lambda cell: float(x.losses(cell, "dev").mean()))
    end = min(("alpha 0", "dedicated"), key=lambda cell: float(x.losses(cell).mean()))
    return x.gain(end, best).against(note=f"{best} against {end}")


def _p15(x: Experiment) -> Evidence:
    kernel, speed = x.speed()
    stored = [run.result()["int8"] for run in x.made[BASE]]
    saved = float(np.mean([one["saved"] for one in stored]))
    whole = float(np.mean([one["saved"] * one["rare"] / one["experts"] for one in stored]))
    note = (
        f"kernel {kernel}; memory is counted against 16 bits, {whole:.0%} of that of all experts is saved; both stores "
        f"run in float32"
    )
    return x.seed_mean(speed).against(saved, note=note)


JUDGES: Judges = {
    "P5": ((BASE,), _p5),
    "P6": ((BASE,), retained),
    "P7": (("none", "added", "concatenated"), _p7),
    "P8": (("dedicated", "redundant"), _p8),
    "P9": ((BASE,), lambda x: x.rarity()),
    "P10": ((BASE, "unbalanced"), _p10),
    "P11": (("none", "none half", "copied half", "distilled half"), _p11),
    "P12": (("dedicated", "family", "random"), _p12),
    "P13": (("dedicated", "alpha 0", "alpha 0.3", "alpha 1"), _p13),
    "P15": ((BASE,), _p15),
}  # fmt: skip


def judges(experiment: Experiment) -> Judges:
    """`JUDGES`, P5 and P6 on the cell that learns, and P4 where the grid has the cells of the thesis."""
    thesis, learns = experiment.grid.thesis, (learner(experiment),)
    found: Judges = {**JUDGES, "P5": (learns, _p5), "P6": (learns, retained)}
    return found if thesis is None else {"P4": (needed(thesis), spared), **found}


def claims(experiment: Experiment) -> dict[str, Evidence | str]:
    """What each claim is judged on, with the length of the runs, or the reason why not; see `judged`."""
    read, thesis = dict.fromkeys(JUDGES, _read(experiment)), experiment.grid.thesis
    if thesis is not None:
        read["P4"] = f"runs of {thesis.tokens:,} tokens of each language"
    return {
        claim: found
        if isinstance(found, str)
        else found._replace(note="; ".join(filter(None, (found.note, read[claim]))))
        for claim, found in judged(judges(experiment), experiment).items()
    }
