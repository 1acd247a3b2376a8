"""On what claims M2 to M8 are judged, from the records of the multi-head grid."""

from functools import partial

import numpy as np

from ...measure.evidence import Evidence
from ..grid.records import Judges, judged
from .grid import LABELS
from .source import printed_differences
from .tables import ORDER, UNTIMED, Experiment


def _compared(x: Experiment, block: str, pairs: tuple[tuple[str, str], ...] = ORDER) -> Evidence:
    """The comparison whose interval reaches highest, with the next interval's upper end as null."""
    table = x.order(block, pairs)
    row = table.iloc[0]
    null = float(table["high"].iloc[1]) if len(table) > 1 else np.nan
    own = Evidence(*row[["estimate", "low", "high", "n"]])
    return own.against(null, note=_power(block, str(row.name), own))


def _power(block: str, name: str, found: Evidence) -> str:
    """Which comparison decides, and whether an effect as large as the source's would have been seen."""
    ours, theirs = name.split(" - ")
    gap = float(printed_differences(block, theirs).loc[ours, "RedPajama"])
    half = (found.high - found.low) / 2
    seen = "more than" if abs(gap) > half else "less than"
    pair = f"{LABELS[ours]} against {LABELS[theirs]}"
    return f"{pair}; the source's gap is {gap:+.4f}, {seen} half of our interval, {half:.4f}"


def _used(x: Experiment) -> Evidence:
    active = [x.active(("plain", variant)) for variant in ("heads3", "sparse")]
    return x.paired_mean(*(part.mean(["corpus", "layer"]).to_series() for part in active if part is not None))


def _slower(x: Experiment) -> Evidence:
    if x.times is None:
        raise ValueError(f"times of steps {UNTIMED}")
    times = [np.log(x.facts(variant)["seconds"]) for variant in ("heads3", "sparse")]
    return x.paired_mean(*times).mapped(np.exp)


JUDGES: Judges = {
    "M2": (["plain"], partial(_compared, block="plain", pairs=ORDER[:2])),
    "M3": (["plain"], partial(_compared, block="plain", pairs=ORDER[2:])),
    "M4": (["shared"], partial(_compared, block="shared")),
    "M5": (["bitnet"], partial(_compared, block="bitnet")),
    "M6": (["ablation"], partial(_compared, block="ablation", pairs=(("heads2_merge", "heads2_head"),))),
    "M7": (["plain"], _used),
    "M8": (["plain"], _slower),
}


def claims(experiment: Experiment) -> dict[str, Evidence | str]:
    """What M2 to M8 are judged on, by claim, or the reason why not; see `judged`."""
    return judged(JUDGES, experiment)
