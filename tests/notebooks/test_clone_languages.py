"""The page on clone languages finds what was planted in its records, whichever cells are there."""

import pytest

from mechanism.report.files import NOTEBOOKS
from mechanism.report.verdicts import Verdict
from mechanism.study.base import runs as training_runs
from tests.notebooks.cells import execute

from ..study.clones.planted import planned, plant

PAGE = NOTEBOOKS / "12_clone_languages.ipynb"
pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    return planned(tmp_path)


def test_the_page_judges_what_was_planted(grid, tmp_path, capsys):
    planted = {"base": (0.3, (0.1, 0.6, 0.3)), "no bilingual": (0.0, (0.1, 0.1, 0.1)), "dense": (0.0, (0.1, 0.5, 0.1))}
    for cell, (depth, states) in planted.items():
        for run in grid.runs(cell):
            plant(run, depth, states=states)
    scope = execute(PAGE, grid=str(tmp_path / "planted.yaml"))
    verdicts = {claim: one.verdict for claim, one in scope["judge"].judged.items()}
    assert {verdicts[claim] for claim in ("R1", "R10", "R12")} == {Verdict.REPLICATED}
    assert verdicts["R2"] != Verdict.REPLICATED, "divergence does not follow quality"
    assert scope["dials"].loc["base", "U"] == pytest.approx(0.3, abs=0.02)
    assert "depth of the U 0.3" in capsys.readouterr().out
    written = {path.stem for path in (tmp_path / "results" / "clones").glob("*.json")}
    assert written == set(scope["judge"].judged)


def test_cells_without_their_runs_leave_their_claims_undecided(grid, tmp_path):
    for run in grid.runs("base"):
        plant(run, 0.3)
    for run in grid.runs("no bilingual")[:2]:
        plant(run, 0.0)
    scope = execute(PAGE, grid=str(tmp_path / "planted.yaml"))
    assert {"R10", "R12"} <= set(scope["judge"].undecided)
    assert "no bilingual" not in scope["dials"].index
    assert "not all there" in scope["judge"].undecided["R12"]
