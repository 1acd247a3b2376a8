"""On what claims P4 to P13 and P15 are judged, from the records of the cross-lingual grid."""

from collections.abc import Callable

import numpy as np

from ...measure.correlation import Correlation
from ...measure.evidence import Evidence
from ...measure.statistics import median_interval
from .adaptation import embedding_share, needed_share, retained
from .grid import BASE
from .tables import BUDGETS, GOAL, CrossExperiment

LOADED, COSTS = 2.0, 1.025
"""Thresholds of P10's rule: load, and time of a step with the balance loss over that of one without."""


def _p4(x: CrossExperiment) -> Evidence:
    found = x.growths()
    if outside := [f"with {budget}, {told}" for budget, told in found.items() if isinstance(told, str)]:
        raise ValueError("; ".join(outside))
    inside = {budget: own for budget, own in found.items() if isinstance(own, Evidence)}
    largest = max(inside, key=lambda budget: inside[budget].high)
    return inside[largest].against(note=f"the larger of two: with {largest}")


def _p5(x: CrossExperiment) -> Evidence:
    note = (
        f"interval: range over seeds; the new language was never in the stream, only `all` and `experts 2 + embedding` "
        f"may change the word embedding ({embedding_share(x):.0%} of the parameters), and one rate and "
        f"{x.grid.adaptation.steps} steps, not tuned, serve all methods"
    )
    return needed_share(x).against(note=note)


def _p7(x: CrossExperiment) -> Evidence:
    base, kinds = x.information("none"), ("added", "concatenated")
    gain = np.mean([x.information(kind) for kind in kinds], 0) / base - 1
    worse = float(np.mean([x.difference(kind, "none").estimate for kind in kinds]))
    return x.seed_mean(gain).against(worse)


def _p9(x: CrossExperiment) -> Evidence:
    table = x.settling()
    return Correlation("spearman", seed=x.seed)(table["settled"].to_numpy(), np.log(table["share"]).to_numpy())


def _p10(x: CrossExperiment) -> Evidence:
    found, ratios = x.seed_mean(x.english_load("unbalanced")), np.array(x.made[BASE][0].result()["balance_time"])
    time = median_interval(ratios)
    note = f"time {time.estimate:.3f} [{time.low:.3f}, {time.high:.3f}], median and 95 % interval of {time.n} turns"
    if time.low < COSTS <= time.high and found.low >= LOADED:
        other = "replicated" if time.estimate >= COSTS else "partly"
        note += f"; the timing does not decide, by its median the verdict would be *{other}*"
    return found.against(time.low, note=note)


def _p11(x: CrossExperiment) -> Evidence:
    found = x.difference("none half", "distilled half")
    return found.against(-x.difference("distilled half", "none").estimate)


def _p12(x: CrossExperiment) -> Evidence:
    loss = float(x.losses("dedicated").mean())
    found = x.difference("family", "dedicated")
    worse = x.difference("random", "dedicated").estimate
    return found.mapped(lambda bits: bits / loss).against(worse / loss)


def _p13(x: CrossExperiment) -> Evidence:
    best = min(("alpha 0.3", "alpha 1"), key=lambda cell: float(x.losses(cell, "dev").mean()))
    end = min(("alpha 0", "dedicated"), key=lambda cell: float(x.losses(cell).mean()))
    return x.difference(best, end).against(note=f"{best} against {end}")


def _p15(x: CrossExperiment) -> Evidence:
    kernel, speed = x.speed()
    saved = float(np.mean([run.result()["int8"]["saved"] for run in x.made[BASE]]))
    note = f"kernel {kernel}; memory against 16 bits is computed, both stores run in float32"
    return x.seed_mean(speed).against(saved, note=note)


_SIZES = GOAL, *(f"16 languages {e} experts{ending}" for ending in BUDGETS.values() for e in (8, 32))
JUDGES: dict[str, tuple[tuple[str, ...], Callable[[CrossExperiment], Evidence]]] = {
    "P4": (_SIZES, _p4),
    "P5": ((BASE,), _p5),
    "P6": ((BASE,), retained),
    "P7": (("none", "added", "concatenated"), _p7),
    "P8": (("dedicated", "redundant"),
           lambda x: x.seed_mean(x.misrouting("redundant")).against(float(x.misrouting("dedicated").mean()))),
    "P9": ((BASE,), _p9),
    "P10": ((BASE, "unbalanced"), _p10),
    "P11": (("none", "none half", "distilled half"), _p11),
    "P12": (("dedicated", "family", "random"), _p12),
    "P13": (("dedicated", "alpha 0", "alpha 0.3", "alpha 1"), _p13),
    "P15": ((BASE,), _p15),
}  # fmt: skip
"""For each claim, the cells it needs and how it is judged."""


def cross_evidence(experiment: CrossExperiment) -> dict[str, Evidence | str]:
    """What each claim is judged on, as `data/claims.yaml` fixes it; or the reason why it cannot be judged:
    runs that are missing, or numbers that say nothing."""
    found: dict[str, Evidence | str] = {}
    for claim, (cells, judge) in JUDGES.items():
        if not experiment.grid.complete(*cells):
            found[claim] = f"it needs all runs of {', '.join(cells)}, see above"
            continue
        try:
            found[claim] = judge(experiment)
        except ValueError as reason:
            found[claim] = str(reason)
    return found
