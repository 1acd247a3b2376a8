"""On what claims M2 to M8 are judged, from the records of the multi-head grid."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ...measure.evidence import Evidence
from .source import printed_differences
from .tables import LABELS, ORDER, Experiment


def evidence(experiment: Experiment) -> dict[str, Evidence]:
    """What M2 to M8 are judged on, by claim, as `data/claims.yaml` fixes it. Claims of a block whose runs are not all
    there are left out."""
    judges: dict[str, Callable[[Experiment, str], dict[str, Evidence]]] = {
        "plain": _plain,
        "shared": partial(_compared, "M4"),
        "bitnet": partial(_compared, "M5"),
        "ablation": partial(_compared, "M6", pairs=[("heads2_merge", "heads2_head")]),
    }
    found: dict[str, Evidence] = {}
    for block, judge in judges.items():
        if block in experiment.grid.blocks and experiment.grid.complete(block):
            found |= judge(experiment, block)
    return dict(sorted(found.items()))


def _plain(experiment: Experiment, block: str) -> dict[str, Evidence]:
    found = _compared("M2", experiment, block, ORDER[:2]) | _compared("M3", experiment, block, ORDER[2:])
    active = [experiment.active(("plain", variant)) for variant in ("heads3", "sparse")]
    used = [part.mean(["corpus", "layer"]).to_series() for part in active if part is not None]
    found["M7"] = experiment.paired_mean(*used)
    if experiment.times is not None:
        times = [np.log(experiment.facts(variant)["seconds"]) for variant in ("heads3", "sparse")]
        found["M8"] = experiment.paired_mean(*times).mapped(np.exp)
    return found


def _compared(
    claim: str, experiment: Experiment, block: str, pairs: Sequence[tuple[str, str]] = ORDER
) -> dict[str, Evidence]:
    """A claim judged on the comparison whose interval reaches highest, with the next interval's upper end as null;
    nothing where diverged runs leave a comparison without two seeds."""
    table = experiment.order(block, pairs)
    if table.empty:
        return {}
    row = table.iloc[0]
    null = float(table["high"].iloc[1]) if len(table) > 1 else np.nan
    own = Evidence(*row[["estimate", "low", "high", "n"]])
    return {claim: own.against(null, note=_power(block, str(row.name), own))}


def _power(block: str, name: str, found: Evidence) -> str:
    """Which comparison decides, and whether an effect as large as the source's would have been seen."""
    ours, theirs = name.split(" - ")
    gap = float(printed_differences(block, theirs).loc[ours, "RedPajama"])
    half = (found.high - found.low) / 2
    seen = "more than" if abs(gap) > half else "less than"
    pair = f"{LABELS[ours]} against {LABELS[theirs]}"
    return f"{pair}; the source's gap is {gap:+.4f}, {seen} half of our interval, {half:.4f}"
