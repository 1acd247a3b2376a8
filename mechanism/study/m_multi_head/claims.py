"""On what claims M2 to M8 are judged, from the records of the multi-head grid."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...measure.statistics import Estimate
from .source import printed_differences
from .tables import LABELS, ORDER, Experiment

Evidence = dict[str, Any]


def evidence(experiment: Experiment) -> dict[str, Evidence]:
    """What M2 to M8 are judged on, by claim: `estimate`, `interval`, `n`, `null` as `data/claims.yaml` fixes them, and
    a `note`. Claims of a block whose runs are not all there are left out."""
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
    found["M7"] = _evidence(experiment.paired_mean(*used))
    if experiment.times is not None:
        times = [np.log(experiment.facts(variant)["seconds"]) for variant in ("heads3", "sparse")]
        value, low, high = np.exp((ratio := experiment.paired_mean(*times))[:3]).tolist()
        found["M8"] = _evidence(Estimate(value, low, high, ratio.n))
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
    null = float(table["high"].iloc[1]) if len(table) > 1 else None
    own = Estimate(float(row["estimate"]), float(row["low"]), float(row["high"]), int(row["n"]))
    return {claim: {**_evidence(own, null), "note": _power(block, str(row.name), own)}}


def _power(block: str, name: str, found: Estimate) -> str:
    """Which comparison decides, and whether an effect as large as the source's would have been seen."""
    ours, theirs = name.split(" - ")
    gap = float(printed_differences(block, theirs).loc[ours, "RedPajama"])
    half = (found.high - found.low) / 2
    seen = "more than" if abs(gap) > half else "less than"
    pair = f"{LABELS[ours]} against {LABELS[theirs]}"
    return f"{pair}; the source's gap is {gap:+.4f}, {seen} half of our interval, {half:.4f}"


def _evidence(found: Estimate, null: float | None = None) -> Evidence:
    interval = (float(found.low), float(found.high))
    return {"estimate": float(found.value), "interval": interval, "n": int(found.n), "null": null}
