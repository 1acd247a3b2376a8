"""Claims of chapter R on clone languages: what is planted is found by the claims' own rules, and nothing else."""

import pytest

from mechanism.measure.evidence import Evidence
from mechanism.report.claims import find_claim
from mechanism.study.base import runs as training_runs
from mechanism.study.clones.tables import Clones
from mechanism.study.r_multilingual.clone_claims import claims, links_by_layer, tables
from tests.study.clones.planted import planned, plant


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    return planned(tmp_path)


def verdicts(found: dict[str, Evidence | str]) -> dict[str, str]:
    return {
        name: str(find_claim(name, "clones").verdict(own)) for name, own in found.items() if isinstance(own, Evidence)
    }


def test_what_is_planted_is_replicated(grid):
    for run in grid.runs("base"):
        plant(run, 0.4, linked=0.8, apart=0.4)
    for run in grid.runs("no bilingual"):
        plant(run, 0.0, linked=0.8)
    for run in grid.runs("dense"):
        plant(run, 0.0)
    found = claims(Clones(grid))
    assert not [name for name, own in found.items() if isinstance(own, str)]
    told = verdicts(found)
    assert {told[name] for name in ("R1", "R2", "R3", "R4", "R9", "R10", "R12")} == {"replicated"}
    assert links_by_layer(Clones(grid)).shape == (6, 3)
    assert [len(own) for own in tables(Clones(grid))] == [5, 5, 5]


def test_a_model_without_any_of_it_replicates_nothing(grid):
    for cell in ("base", "no bilingual", "dense"):
        for run in grid.runs(cell):
            plant(run, 0.0, apart=0.0, states=(0.5, 0.5, 0.5))
    told = verdicts(claims(Clones(grid)))
    assert (told["R1"], told["R9"], told["R12"]) == ("refuted",) * 3
    assert "replicated" not in {told["R2"], told["R10"]}


def test_what_lacks_its_runs_says_which_command_makes_them(grid):
    for run in grid.runs("base"):
        plant(run, 0.3)
    found = claims(Clones(grid))
    assert all("mechanism train --grid planted" in str(found[name]) for name in ("R10", "R12"))
    assert isinstance(found["R1"], Evidence)
    assert isinstance(found["R3"], Evidence)
