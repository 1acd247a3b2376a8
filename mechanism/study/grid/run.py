"""Making the runs of a grid: small trainings, each recorded at its content address, shared among processes."""

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from rich.console import Console

from ...nn.checkpoint import TrainingError, dump_json
from ...nn.errors import LayerError
from ...nn.train_config import TrainConfig
from ...nn.training import Trainer
from ..base import runs as training_runs
from ..base.probe_log import shown, thin

CONFIG, METRICS, RESULT = "config.json", "metrics.csv", "result.json"
WAIT = 5.0
"""Seconds between looks at runs that other processes make."""


@dataclass(frozen=True)
class RecordedRun(training_runs.Addressed):
    """A run of a `grid`, which names it, and its places; its checkpoints are gone once the record is there."""

    grid: str
    train: TrainConfig

    aside: ClassVar[tuple[str, ...]] = ("grid", "cell")

    @property
    def name(self) -> str:
        """For people."""
        raise NotImplementedError

    @property
    def record(self) -> Path:
        """Folder of the committed record."""
        return training_runs.RUNS / self.grid / self.hash

    @property
    def done(self) -> bool:
        return (self.record / RESULT).exists()

    @property
    def usable(self) -> bool:
        """Whether it was made and did not diverge."""
        return self.done and "diverged" not in self.result()

    def result(self) -> dict[str, Any]:
        """Its totals; a FileNotFoundError where it was not made yet."""
        return json.loads((self.record / RESULT).read_text("utf-8"))

    @property
    def lock(self) -> FileLock:
        """Held by the process that makes the run."""
        folder = training_runs.cache_folder() / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / self.hash)


Run = TypeVar("Run", bound=RecordedRun)


class Planned(NamedTuple):
    """A run of a grid: the `cell` that it belongs to, its optimiser `steps`, and the `run`; None while what it depends
    on is missing."""

    cell: str
    steps: int
    run: Any


class Workshop(ABC, Generic[Run]):
    """What the runs of a grid are made with; what all of them read is loaded once."""

    @abstractmethod
    def trainer(self, run: Run) -> Trainer:
        """The run's trainer at its newest checkpoint."""

    @abstractmethod
    def measure(self, run: Run, trainer: Trainer) -> dict[str, Any]:
        """What the result of a finished run says besides its time; tables are written into its record."""


class RunGrid(ABC, Generic[Run]):
    """A grid of runs, named like its file and the folder of its records: what they are, and what is done of them."""

    name: str
    figure: tuple[str, int] = ("loss", 4)
    """Name and digits of the number by which people tell runs apart; see `figure_of`."""

    @abstractmethod
    def planned(self) -> Iterator[Planned]:
        """Every run, in the order in which they are made."""

    @abstractmethod
    def workshop(self) -> Workshop[Run]:
        """Load what the runs read; a TrainingError where the grid does not fit its text."""

    @abstractmethod
    def figure_of(self, result: dict[str, Any]) -> float:
        """The number of a run's result that the table of the grid shows."""

    def ready(self, run: Run) -> bool:
        """Whether a run that is missing can be made now."""
        return True

    def keeps(self, run: Run) -> bool:
        """Whether a run's checkpoints stay until the grid is complete."""
        return False

    def missing_runs(self) -> Iterator[Run]:
        """The runs that are missing and can be made, in order."""
        for _, _, run in self.planned():
            if run is not None and not run.done and self.ready(run):
                yield run

    def size(self) -> int:
        """Number of runs in all."""
        return sum(1 for _ in self.planned())

    def remaining(self) -> tuple[int, float | None]:
        """Runs that are missing, and the seconds that they will take: steps left by the seconds of a step of the same
        cell, else of the mean over cells; None before the first run."""
        known: dict[str, list[float]] = {}
        missing: list[Planned] = []
        for plan in self.planned():
            if plan.run is None or not plan.run.done:
                missing.append(plan)
            elif seconds := plan.run.result()["step_seconds"]:
                known.setdefault(plan.cell, []).append(seconds)
        if not known:
            return len(missing), None
        rates = {cell: float(np.mean(values)) for cell, values in known.items()}
        mean = float(np.mean(list(rates.values())))
        return len(missing), float(sum(plan.steps * rates.get(plan.cell, mean) for plan in missing))

    def summary(self) -> str:
        """One sentence: what is left."""
        missing, seconds = self.remaining()
        if not missing:
            return f"all {self.size()} runs are there"
        hours = "" if seconds is None else f", {seconds / 3600:.1f} h of training in one process"
        return f"{missing} of {self.size()} runs left{hours}"

    def cells_of_runs(self) -> dict[str, list[Any]]:
        """The runs of each cell; None for one that depends on what is missing."""
        cells: dict[str, list[Any]] = {}
        for plan in self.planned():
            cells.setdefault(plan.cell, []).append(plan.run)
        return cells

    def lacking(self) -> str:
        """Which cells lack runs, with the command that makes them, and which runs diverged; empty when all is well."""
        cells, told = self.cells_of_runs(), []
        if lost := [run.name for runs in cells.values() for run in runs if run and run.done and not run.usable]:
            told.append(f"Diverged, and left out: {', '.join(lost)}.")
        made = {cell: sum(run is not None and run.done for run in runs) for cell, runs in cells.items()}
        if short := [f"{cell} {made[cell]} of {len(runs)}" for cell, runs in cells.items() if made[cell] < len(runs)]:
            told.append(
                f"Not made yet: {'; '.join(short)}. `mechanism train --grid {self.name}` makes the missing runs; what "
                "needs them is left out, and the claims that need them stay undecided."
            )
        return " ".join(told)

    def status(self) -> pd.DataFrame:
        """A row per cell: `runs` made of those wanted, the mean of the figure over them, and `step`, seconds of a step;
        None before a run is made."""
        (name, digits), rows = self.figure, []
        for cell, runs in self.cells_of_runs().items():
            results = [run.result() for run in runs if run is not None and run.usable]
            row: dict[str, Any] = {"cell": cell, "runs": f"{len(results)} of {len(runs)}", name: None, "step": None}
            if results:
                row[name] = f"{np.mean([self.figure_of(result) for result in results]):.{digits}f}"
                row["step"] = f"{np.mean([result['step_seconds'] for result in results]):.3f}"
            rows.append(row)
        return pd.DataFrame(rows)

    def make(self, console: Console, runs: int | None = None, steps: int | None = None) -> None:
        """Make the missing runs one by one, or go on where the last process stopped. Several processes share them:
        those left out that another one is making; where only such are left, wait, since others may depend on them or
        they may be given up.

        Args:
            runs: stop after so many; steps: stop each run after so many steps and end with it.

        Raises:
            TrainingError: see `Trainer.run` and `workshop`.
            KeyboardInterrupt: after a checkpoint.
        """
        made, shop = 0, self.workshop() if any(self.missing_runs()) else None
        while shop and made != runs and (todo := list(self.missing_runs())):
            claimed = next(filter(None, map(_claim, todo)), None)
            if claimed is None:
                time.sleep(WAIT)
                continue
            run, lock = claimed
            with lock:
                if run.done:
                    continue
                console.print(f"{run.name} {run.hash}: {self.summary()}")
                if not self.make_run(run, shop, console, steps):
                    return
            made += 1
        if not any(run is None or not run.done for _, _, run in self.planned()):
            for _, _, run in self.planned():
                shutil.rmtree(run.workspace, ignore_errors=True)

    def make_run(self, run: Run, shop: Workshop[Run], console: Console, steps: int | None = None) -> bool:
        """Train one run to its end, or for so many steps, and write its record at the end; whether it was reached. A
        run that diverges ends there: its record says so, and comparisons leave it out."""
        try:
            trainer = shop.trainer(run)
            shown(trainer, console, steps, transient=True)
        except (TrainingError, LayerError) as error:
            if isinstance(error.__cause__, OSError):
                raise
            self._record(run, {"diverged": str(error), "step_seconds": None})
            return True
        if trainer.step < run.train.steps:
            return False
        result = self._measured(run, trainer, shop)
        name, digits = self.figure
        console.print(
            f"  {run.train.steps} steps of {result['step_seconds']:.3f} s, {name} {self.figure_of(result):.{digits}f}"
        )
        return True

    def _measured(self, run: Run, trainer: Trainer, shop: Workshop[Run]) -> dict[str, Any]:
        run.record.mkdir(parents=True, exist_ok=True)
        metrics = pd.read_csv(run.workspace / METRICS)
        thin(metrics).to_csv(run.record / METRICS, index=False)
        result = {
            "seconds": round(float(metrics["seconds"].sum()), 1), "threads": torch.get_num_threads(),
            "step_seconds": round(float(metrics["seconds"].median()), 4), "torch": torch.__version__.split("+")[0],
        } | trainer.made_on()  # fmt: skip
        trainer.model.eval()
        result |= shop.measure(run, trainer)
        self._record(run, result)
        return result

    def _record(self, run: Run, result: dict[str, Any]) -> None:
        """Write what the run is and, last, its result; its checkpoints are dropped."""
        run.record.mkdir(parents=True, exist_ok=True)
        dump_json(run.record / CONFIG, asdict(run))
        dump_json(run.record / RESULT, result)
        if not self.keeps(run):
            shutil.rmtree(run.workspace, ignore_errors=True)


def _claim(run: Run) -> tuple[Run, AcquireReturnProxy] | None:
    """The run and what releases its lock; None if another process holds it."""
    try:
        return run, run.lock.acquire(blocking=False)
    except Timeout:
        return None
