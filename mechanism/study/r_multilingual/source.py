"""What arXiv 2510.04694 reports of steering, beside what was found here."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from .steering_plan import CONTROLS
from .steering_results import SteeringResults

# Main results of arXiv 2510.04694: means over languages, in percent. Layers are counted from 1.
SOURCE = pd.DataFrame(
    [
        ("Qwen3-30B-A3B", "MGSM", "8-35 of 48", 0.4, "soft 0.5", 22, 76.4, 78.0, 1.6),
        ("Phi-3.5-MoE", "MGSM", "8-17 of 32", 0.3, "soft 0.5", 12, 57.5, 58.9, 1.4),
        ("GPT-OSS-20B", "MGSM", "4-19 of 24", 0.3, "hard", 9, 68.9, 71.5, 2.6),
        ("Qwen3-30B-A3B", "Global-MMLU, medicine", "8-35 of 48", 0.5, "hard", 23, 68.2, 69.1, 0.9),
        ("Phi-3.5-MoE", "Global-MMLU, medicine", "8-17 of 32", 0.25, "soft 0.5", 2, 57.8, 58.8, 1.0),
        ("GPT-OSS-20B", "Global-MMLU, medicine", "4-19 of 24", 0.3, "soft 0.5", 6, 63.8, 64.5, 0.7),
    ],
    columns=["model", "task", "layers", "tau", "steering", "experts", "base", "steered", "gain"],
)


def beside_source(results: Iterable[tuple[str, int | str, SteeringResults]]) -> pd.DataFrame:
    """The source's table of main results, and a row for each result here; in percent and points, gains here with their
    95 % interval and the 95th percentile of matched random experts.

    Args:
        results: model, number of its layers, and what steering did.
    """
    rows = []
    for model, depth, one in results:
        row = one.summary()
        shown = {"model": model, "task": row["task"], "layers": f"{row['layers']} of {depth} (from 0)"}
        shown |= {name: row[name] for name in ("tau", "steering", "experts")}
        shown |= {name: 100 * row[name] for name in ("base", "steered")}
        rows.append(shown | {"gain": _points(row), "random, 95th": 100 * row["null"], "clusters": row["n"]})
    source = SOURCE.assign(gain=SOURCE["gain"].map("{:+.1f}".format))
    both = pd.concat({"source": source, "here": pd.DataFrame(rows)}, names=["", "row"]).droplevel("row")
    return both.assign(tau=both["tau"].map("{:g}".format))


def side(low: float, high: float, below: bool = False) -> str:
    """Whether an interval lies on the side of 0 that a source claims: yes, no, or open."""
    if np.isnan(low):
        return "not tried"
    claimed, other = (high < 0, low > 0) if below else (low > 0, high < 0)
    return "yes" if claimed else "no" if other else "open"


def point_by_point(results: SteeringResults) -> pd.DataFrame:
    """What the source says of steering beside what was found here, in points with 95 % intervals; `as the source` is
    *open* where the interval allows both."""
    found, controls = results.summary(), results.controls()
    english = results.by_language().iloc[0]
    apart = english["low"] > 0.01 or english["high"] < -0.01
    small = "no" if apart else "yes" if max(abs(english["low"]), abs(english["high"])) < 0.01 else "open"
    rows = [
        ("accuracy in other languages rises (+0.7 to +2.6)", _points(found), side(found["low"], found["high"])),
        (f"{results.pivot} changes by less than one point", _points(english), small),
        ("2 to 23 experts are steered", f"{found['experts']} experts", ""),
    ]
    for name, row in controls.loc[list(CONTROLS)].iterrows():
        rows.append((f"{name}: accuracy falls", _points(row), side(row["low"], row["high"], below=True)))
    slope = results.gap_slope()
    if slope is not None:
        told = f"{slope.estimate:+.2f} [{slope.low:+.2f}, {slope.high:+.2f}] per point of gap"
        rows.append(("languages that lag gain most (Swahili)", told, side(slope.low, slope.high)))
    return pd.DataFrame(rows, columns=["the source", "here", "as the source"])


def _points(row: Any) -> str:
    return f"{100 * row['gain']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
