"""Tables of the grid of clone languages on records whose content is known."""

import numpy as np
import pytest

from mechanism.study.base import runs as training_runs
from mechanism.study.clones.tables import Clones
from tests.study.clones.planted import LAYERS, planned, plant


@pytest.fixture
def grid(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    return planned(tmp_path)


def test_only_clones_that_every_seed_has_learnt_count(grid):
    for run in grid.runs("base"):
        plant(run, 0.3)
    clones = Clones(grid)
    assert clones.trained("base") == ["en", *(f"clone {k}" for k in range(1, 6))], "clone 6 is read, and not learnt"
    assert clones.unread("base") == ["clone 7"]
    assert list(clones.made) == ["base"]
    with pytest.raises(ValueError, match="mechanism train --grid planted"):
        clones.observations("dense")


def test_the_table_of_dials_finds_what_was_planted(grid):
    for cell, depth in (("base", 0.3), ("no bilingual", 0.0), ("6 layers", 0.3), ("dense", 0.0)):
        for run in grid.runs(cell):
            plant(run, depth)
    table = Clones(grid).dials()
    assert list(table.index) == ["base", "no bilingual", "6 layers"], "a dense model routes nowhere"
    assert table.loc["base", "U"] == pytest.approx(0.3, abs=0.02)
    assert table.loc["no bilingual", "U"] == pytest.approx(0.0, abs=0.02)
    assert table.loc["base", "U, low"] < 0.3 < table.loc["base", "U, high"] + 0.02
    assert np.isnan(table.loc["6 layers", "U, low"]), "a single seed has no interval"
    assert table.loc["base", "content"] == pytest.approx(0.3, abs=0.02)
    assert table.loc["base", "U, shuffled"] == pytest.approx(0, abs=0.02)
    assert table.loc["base", "retrieval"] == pytest.approx(0.6, abs=0.05)
    assert table.loc["base", "U, deepest"] == pytest.approx(table.loc["base", "U"], abs=0.02)
    assert table.loc["base", ["runs", "clones"]].tolist() == [3, 5]


def test_curves_over_depth_and_training(grid):
    for run in grid.runs("base"):
        plant(run, 0.3)
    clones = Clones(grid)
    profile = clones.over_seeds("base")
    assert len(profile) == LAYERS
    assert (profile["low"] <= profile["estimate"]).all()
    assert profile["estimate"].idxmin() in (2, 3)
    assert (clones.profiles("base")["en"] == 0).all()
    assert len(clones.over_seeds("base", "hits_centred")) == LAYERS + 1
    emergence = clones.emergence("base")
    assert list(emergence.index) == [0, 256, 512]
    assert emergence["U"].iloc[-1] == pytest.approx(0.3, abs=0.02)
