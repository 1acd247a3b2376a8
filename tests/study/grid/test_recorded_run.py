"""Processes share the runs of a grid."""

from dataclasses import dataclass

import pytest

from mechanism.study.base import runs as training_runs
from mechanism.study.grid.recorded_run import RESULT, RecordedRun, make_all


@dataclass(frozen=True)
class Run(RecordedRun):
    grid: str
    name: str

    @property
    def hash(self) -> str:
        return self.name


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[Run]:
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(training_runs, "cache_folder", lambda: tmp_path / "cache")
    return [Run("toy", name) for name in "abc"]


def finish(run: Run) -> bool:
    run.record.mkdir(parents=True)
    (run.record / RESULT).write_text("{}")
    return True


def test_a_run_that_another_process_makes_is_left_to_it_and_taken_over_when_given_up(runs):
    made, other = [], runs[0].lock.acquire()

    def make(run: Run) -> bool:
        made.append(run.hash)
        if len(made) == 2:
            other.lock.release()
        return finish(run)

    make_all(lambda: (run for run in runs if not run.done), make, wait=0.01)
    assert made == ["b", "c", "a"]
    assert all(run.done for run in runs)


def test_what_another_process_finished_is_not_made_again(runs):
    made, seen = [], list(runs)
    finish(runs[0])

    def missing():
        found = [run for run in seen if run is runs[0] or not run.done]
        seen.remove(runs[0]) if runs[0] in seen else None
        return found

    def make(run: Run) -> bool:
        made.append(run.hash)
        return finish(run)

    make_all(missing, make, wait=0.01)
    assert made == ["b", "c"]


def test_it_stops_after_so_many_and_where_a_run_is_not_finished(runs):
    def missing():
        return (run for run in runs if not run.done)

    make_all(missing, finish, runs=1)
    assert [run.done for run in runs] == [True, False, False]
    make_all(missing, lambda run: False)
    assert [run.done for run in runs] == [True, False, False]
    with pytest.raises(KeyboardInterrupt):
        make_all(missing, interrupted)
    with runs[1].lock.acquire(blocking=False):
        pass


def interrupted(run: Run) -> bool:
    raise KeyboardInterrupt
