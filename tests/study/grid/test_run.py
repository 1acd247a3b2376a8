"""Processes share the runs of a grid."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from mechanism.nn.train_config import TrainConfig
from mechanism.study.base import runs as training_runs
from mechanism.study.grid import run as maker
from mechanism.study.grid.run import RESULT, Planned, RecordedRun, RunGrid, Workshop

QUIET = Console(quiet=True)


@dataclass(frozen=True)
class Run(RecordedRun):
    grid: str
    letter: str
    train: TrainConfig = TrainConfig()

    @property
    def hash(self) -> str:
        return self.letter

    @property
    def name(self) -> str:
        return self.letter


@dataclass
class Toy(RunGrid[Run]):
    """Runs a, b and c; `finish` stands for training."""

    name: str = "toy"
    made: list[str] = field(default_factory=list)
    ends: bool = True

    def planned(self) -> Iterator[Planned]:
        for name in "abc":
            yield Planned("all", 4, Run("toy", name))

    def workshop(self) -> Workshop[Run]:
        return object()  # type: ignore[return-value]

    def figure_of(self, result: dict[str, Any]) -> float:
        return result["loss"]

    def about(self, run: Run) -> dict[str, Any]:
        return {"name": run.name}

    def make_run(self, run: Run, shop: Workshop[Run], console: Console, steps: int | None = None) -> bool:
        if self.ends:
            self.made.append(run.name)
            self._record(run, {"loss": float(len(self.made)), "step_seconds": 0.5})
        return self.ends


@pytest.fixture
def grid(tmp_path, monkeypatch) -> Toy:
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(training_runs, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(maker, "WAIT", 0.01)
    return Toy()


def test_a_run_that_another_process_makes_is_left_to_it_and_taken_over_when_given_up(grid, monkeypatch):
    other, real = Run("toy", "a").lock.acquire(), Toy.make_run

    def make_run(self, run, *rest):
        if len(self.made) == 1:
            other.lock.release()
        return real(self, run, *rest)

    monkeypatch.setattr(Toy, "make_run", make_run)
    grid.make(QUIET)
    assert grid.made == ["b", "c", "a"]
    assert grid.summary() == "all 3 runs are there"


def test_what_another_process_finished_is_not_made_again(grid, monkeypatch):
    grid.make(QUIET, runs=1)
    runs, looks = [Run("toy", name) for name in "abc"], []

    def missing(self):  # the first look is that of a process that does not know of `a` yet
        looks.append(1)
        return iter([run for run in runs if (len(looks) <= 2 and run.name == "a") or not run.done])

    monkeypatch.setattr(Toy, "missing_runs", missing)
    grid.make(QUIET)
    assert grid.made == ["a", "b", "c"]


def test_it_stops_after_so_many_and_where_a_run_is_not_finished(grid, monkeypatch):
    assert grid.remaining() == (3, None)
    grid.make(QUIET, runs=1)
    assert grid.made == ["a"]
    assert grid.remaining() == (2, 2 * 4 * 0.5)
    assert grid.status().to_dict("records") == [{"cell": "all", "runs": "1 of 3", "loss": "1.0000", "step": "0.500"}]
    grid.ends = False
    grid.make(QUIET)
    assert grid.made == ["a"]

    def interrupted(*args: Any) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(Toy, "make_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grid.make(QUIET)
    with Run("toy", "b").lock.acquire(blocking=False):
        pass


def test_a_run_that_diverged_is_done_and_not_usable(grid):
    run = Run("toy", "b")
    grid._record(run, {"diverged": "the loss is nan at step 1", "step_seconds": None})
    assert run.done
    assert not run.usable
    grid.make(QUIET)
    assert grid.made == ["a", "c"]
    assert grid.status()["runs"].tolist() == ["2 of 3"]
    assert sorted(path.name for path in run.record.iterdir()) == ["config.json", RESULT]
