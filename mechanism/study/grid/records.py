"""What chapters read from the records of a grid: tables by seed, paired differences, and claims judged on them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...measure.evidence import Evidence
from ...measure.paired import PairedDifference
from .run import RecordedRun

Judges = Mapping[str, tuple[Sequence[str], Callable[[Any], Evidence]]]
"""For each claim, the cells that it needs, and how it is judged."""


def by_seed(runs: Iterable[RecordedRun], file: str, index: str | list[str], value: str) -> pd.DataFrame:
    """A column of a table that every run has, a column a seed; empty without runs."""
    return pd.DataFrame({run.train.seed: pd.read_csv(run.record / file).set_index(index)[value] for run in runs})


def paired(
    ours: pd.DataFrame, theirs: pd.DataFrame, size: str, scale: np.ndarray | float = 1.0, confidence: float = 0.95
) -> Evidence:
    """Difference per unit of size of two tables of `by_seed`, over the seeds that both have and their documents.

    Args:
        size: level of the index with the size of each document; scale: weight of each document.

    Raises:
        ValueError: other documents in one than in the other, or fewer than two common seeds.
    """
    if not ours.index.equals(theirs.index):
        raise ValueError("two models were scored on different documents; make the runs again")
    seeds = sorted(set(ours) & set(theirs))
    each = (ours[seeds] - theirs[seeds]).to_numpy(np.float64).T * scale
    sizes = ours.index.get_level_values(size).to_numpy(np.float64) * scale
    return PairedDifference(confidence)(each, sizes)


def judged(judges: Judges, experiment: Any) -> dict[str, Evidence | str]:
    """What each claim is judged on, as `data/claims.yaml` fixes it; or the reason why it cannot be judged: runs that
    are missing, or numbers that say nothing.

    Args:
        experiment: what judges read; its `grid` says whether cells are complete.
    """
    found: dict[str, Evidence | str] = {}
    for claim, (cells, judge) in judges.items():
        if not experiment.grid.complete(*cells):
            found[claim] = f"it needs all runs of {', '.join(cells)}, see above"
            continue
        try:
            found[claim] = judge(experiment)
        except ValueError as reason:
            found[claim] = str(reason)
    return found
