"""How long each notebook took, kept beside the executed copies: times differ from run to run, copies must not."""

import json
from pathlib import Path
from typing import Any

from .files import COPIES, write_atomic
from .provenance import cpu_name

TIMINGS = "timings.json"


def note_time(name: str, seconds: float, output: Path = COPIES) -> None:
    """Keep the seconds that a notebook took, and the processor that it ran on."""
    entry = {"seconds": round(seconds, 1), "machine": cpu_name()}
    kept = {**read_times(output), name: entry}
    write_atomic(output / TIMINGS, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def read_times(output: Path = COPIES) -> dict[str, dict[str, Any]]:
    """`seconds` and `machine` by notebook; empty where nothing was noted."""
    path = output / TIMINGS
    return json.loads(path.read_text("utf-8")) if path.exists() else {}
