"""On what claims M1 to M8 are judged: M1 on counts, the others on the records of the multi-head grid."""

from functools import partial

import numpy as np

from ...measure.evidence import Evidence
from ..grid.records import Judges, judged
from .grid import LABELS
from .source import printed_differences
from .tables import ORDER, UNTIMED, Experiment, parity_table

SOURCE_TOKENS = 50e9
"""That a model of the source reads: 100,000 steps of half a million."""


def _compared(x: Experiment, block: str, pairs: tuple[tuple[str, str], ...] = ORDER) -> Evidence:
    """The gain in log perplexity in the comparison whose interval reaches lowest, with the next interval's lower end as
    null."""
    table = x.order(block, pairs)
    row = table.iloc[0]
    null = -float(table["high"].iloc[1]) if len(table) > 1 else np.nan
    own = Evidence.of_row(row).mapped(lambda difference: -difference)
    return own.against(null, note=f"{_power(block, str(row.name), own)}; {_trained(x, block)}")


def _power(block: str, name: str, found: Evidence) -> str:
    """Which comparison decides, and whether an effect as large as the source's would have been seen."""
    ours, theirs = name.split(" - ")
    gap = -float(printed_differences(block, theirs).loc[ours, "RedPajama"])
    half = (found.high - found.low) / 2
    seen = "more than" if abs(gap) > half else "less than"
    pair = f"{LABELS[ours]} against {LABELS[theirs]}"
    return f"{pair}; the source's gap is {gap:+.4f}, {seen} half of our interval, {half:.4f}"


def _trained(x: Experiment, block: str) -> str:
    """How much the models of a block have read; parameters are those of its largest one."""
    tokens = x.grid.train["tokens"]
    held = max(x.grid.model(block, variant).parameters() for variant in x.grid.blocks[block].variants)
    each, theirs = f"{tokens / held:.1f} a parameter", f"about {SOURCE_TOKENS / 1e9:.0f} billion"
    return f"after {tokens / 1e6:.1f} million tokens a run, {each}; the source's models read {theirs}"


def _used(x: Experiment) -> Evidence:
    active = [x.active(("plain", variant)) for variant in ("heads3", "sparse")]
    found = x.paired_mean(*(part.mean(["corpus", "layer"]).to_series() for part in active if part is not None))
    return found.against(note=_trained(x, "plain"))


def _slower(x: Experiment) -> Evidence:
    if x.times is None:
        raise ValueError(f"times of steps {UNTIMED}")
    times = [np.log(x.facts(variant)["seconds"]) for variant in ("heads3", "sparse")]
    at = x.times.iloc[0]
    note = f"a recorded run on {at['threads']} CPU threads of one machine, with torch {at['torch']}"
    return x.paired_mean(*times).mapped(np.exp).against(note=note)


JUDGES: Judges = {
    "M2": (["plain"], partial(_compared, block="plain", pairs=ORDER[:2])),
    "M3": (["plain"], partial(_compared, block="plain", pairs=ORDER[2:])),
    "M4": (["shared"], partial(_compared, block="shared")),
    "M5": (["bitnet"], partial(_compared, block="bitnet")),
    "M6": (["ablation"], partial(_compared, block="ablation", pairs=(("heads2_head", "heads2_merge"),))),
    "M7": (["plain"], _used),
    "M8": (["plain"], _slower),
}


def parity() -> Evidence:
    """M1: the largest deviation of the printed multi-head layers from the sparse one in parameters; the null is that in
    FLOPs."""
    table = parity_table().filter(like="MH-MoE", axis=0)
    off, flops = (float((table[f"{count}_ratio"] - 1).abs().max()) for count in ("parameters", "multiplications"))
    sizes = table["experts"].map("{:.0f}".format) + " instead of " + table["experts_exact"].map("{:.2f}".format)
    experts, ratios = " and ".join(sizes), " and ".join(table["parameters_ratio"].map("{:.3f}".format))
    return Evidence.exact(off, len(table), flops, f"parameters are {ratios} times as many, with {experts} experts")


def claims(experiment: Experiment) -> dict[str, Evidence | str]:
    """What M2 to M8 are judged on, by claim, or the reason why not; see `judged`."""
    return judged(JUDGES, experiment)
