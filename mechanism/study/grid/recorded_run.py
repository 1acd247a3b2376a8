"""Where a run of a grid keeps what it made, and how processes share the runs of a grid."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from filelock import AcquireReturnProxy, FileLock, Timeout

from ..base import runs as training_runs

RESULT = "result.json"


class RecordedRun:
    """Places of a run, by its content address.

    Attributes:
        grid: name of the grid that it belongs to.
    """

    grid: str

    @property
    def hash(self) -> str:
        """Content address, of what decides the numbers."""
        raise NotImplementedError

    @property
    def record(self) -> Path:
        """Folder of the committed record."""
        return training_runs.RUNS / self.grid / self.hash

    @property
    def workspace(self) -> Path:
        """Folder of checkpoints, outside the repository; gone once the record is there."""
        return training_runs.cache_folder() / "runs" / self.hash

    @property
    def done(self) -> bool:
        return (self.record / RESULT).exists()

    def result(self) -> dict[str, Any]:
        """Its totals.

        Raises:
            FileNotFoundError: it was not made yet.
        """
        return json.loads((self.record / RESULT).read_text("utf-8"))

    @property
    def lock(self) -> FileLock:
        """Held by the process that makes the run."""
        folder = training_runs.cache_folder() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / self.hash)


Run = TypeVar("Run", bound=RecordedRun)


def make_all(
    missing: Callable[[], Iterable[Run]], make: Callable[[Run], bool], runs: int | None = None, wait: float = 5.0
) -> None:
    """Make the missing runs one by one, those left out that another process is making. Where only such are left, wait:
    others may depend on them, or they may be given up.

    Args:
        missing: the runs that can be made now, in order; make: makes one, and says whether it was finished.
        runs: stop after so many; wait: seconds between looks.
    """
    made = 0
    while made != runs and (todo := list(missing())):
        claimed = next(filter(None, map(_claim, todo)), None)
        if claimed is None:
            time.sleep(wait)
            continue
        run, lock = claimed
        with lock:
            if run.done:
                continue
            if not make(run):
                return
            made += 1


def _claim(run: Run) -> tuple[Run, AcquireReturnProxy] | None:
    """The run and what releases its lock; None if another process holds it."""
    try:
        return run, run.lock.acquire(blocking=False)
    except Timeout:
        return None


def left_in_words(size: int, missing: int, seconds: float | None) -> str:
    """What is left of a grid of so many runs: those missing, and the seconds of their training, where known."""
    if not missing:
        return f"all {size} runs are there"
    hours = "" if seconds is None else f", {seconds / 3600:.1f} h of training in one process"
    return f"{missing} of {size} runs left{hours}"
