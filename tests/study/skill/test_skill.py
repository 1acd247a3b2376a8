"""The grid of a skill learnt in one language: a toy run from a toy base, and what its record says."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from rich.console import Console

from mechanism.corpus.mixture import Column
from mechanism.measure.evidence import NotTestable
from mechanism.nn.checkpoint import TrainingError
from mechanism.study.base import runs as training_runs
from mechanism.study.clones import grid as clones
from mechanism.study.grids import load_grid
from mechanism.study.r_multilingual.steering_checks import ROUTES
from mechanism.study.r_multilingual.steering_plan import CONTROLS
from mechanism.study.r_multilingual.steering_results import SteeringResults
from mechanism.study.skill import grid as skill
from mechanism.study.skill.grid import FILES
from mechanism.study.skill.tables import Skill

BASE: dict[str, Any] = {
    "made_by": "clones.grid",
    "model": {"vocab": 4096, "hidden": 16, "layers": 3, "heads": 1, "head_dim": 16, "experts": 4, "top_k": 2,
              "expert_width": 8, "context": 128},
    "train": {"tokens": 2048, "batch": 4, "length": 32, "lr": 0.01, "warmup": 1, "compile": False, "probes": []},
    "clones": {"shares": [1, 0.5, 0.1, 0], "bilingual": 0.3, "shared": 0.0},
    "held": {"segments": 10, "shortest": 24, "longest": 40},
    "seeds": 1, "cells": {"base": {"weights": True}}, "rules": {},
}  # fmt: skip
SKILL: dict[str, Any] = {
    "made_by": "skill.grid",
    "train": {"tokens": 512, "batch": 4, "length": 32, "lr": 0.01, "warmup": 1, "compile": False},
    "problems": 0.5, "seeds": 1, "sizes": {"dev": 10, "test": 12, "few": 6, "segments": 50, "draws": 5},
    "cells": {"English alone": {"everywhere": False}}, "rules": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    place = tmp_path_factory.mktemp("skill")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHANISM_CACHE", str(place / "cache"))
        patch.setattr(training_runs, "RUNS", place / "runs")
        patch.setattr(skill, "TAUS", (0.01, 0.02, 0.05))
        ids = np.random.default_rng(0).integers(1, 1024, 6000).astype(np.int32)
        column = Column(ids, np.arange(0, 6001, 20), np.arange(300), np.arange(300) // 10)
        for module in (clones, skill):
            patch.setattr(module, "english_tokens", lambda tokenizer: ({("tech", "en"): column}, {}))
        (place / "base.yaml").write_text(yaml.safe_dump(BASE))
        (place / "skill.yaml").write_text(
            yaml.safe_dump(SKILL | {"base": {"grid": str(place / "base.yaml"), "cell": "base"}})
        )
        found: Any = load_grid(str(place / "skill.yaml"))
        with pytest.raises(TrainingError, match="begins with the weights of base, seed 0"):
            found.make(Console(quiet=True))
        assert not any(run.done for _, _, run in found.planned())
        load_grid(str(place / "base.yaml")).make(Console(quiet=True))
        found.make(Console(quiet=True))
        yield found


def test_the_record_has_every_table_and_is_small(grid):
    (run,) = grid.runs("English alone")
    result = run.result()
    assert set(result["exact"]) == {"en", "clone 1", "clone 2"}, "the clone that is never read has no items"
    assert sorted(path.stem for path in run.record.glob("*.nc")) == sorted(FILES)
    assert sum(path.stat().st_size for path in run.record.iterdir()) < 300_000
    found = xr.load_dataset(run.record / "skill.nc")
    assert found["hits"].sizes == {"model": 2, "lang": 3, "item": 10}
    np.testing.assert_allclose(found["rate"].sum("expert"), 2, rtol=1e-5)
    assert xr.load_dataset(run.record / "routes.nc")["route"].values.tolist() == list(ROUTES)


def test_steering_is_read_as_that_of_natural_languages(grid):
    (run,) = grid.runs("English alone")
    found = SteeringResults(xr.load_dataset(run.record / "steering.nc"))
    assert found.compared == ["clone 1", "clone 2"]
    assert len(found.null) == SKILL["sizes"]["draws"]
    assert set(found.claims()) == {"R6", "R7", "R8"}


def test_tables_say_what_the_records_hold(grid):
    found = Skill(grid)
    before = found.by_language()
    assert before.index.tolist() == ["en", "clone 1", "clone 2"]
    assert ((before >= 0) & (before <= 100)).all(axis=None)
    answers = xr.load_dataset(found.runs[0].record / "skill.nc")
    own = answers["hits"].sel(model="branch", lang="clone 2").mean().item()
    assert before.loc["clone 2", "choice, after"] == pytest.approx(100 * own)
    routes = found.routes()
    assert routes.index.tolist() == [(of, route) for of in ("clones", "English") for route in ROUTES]
    own = xr.load_dataset(found.runs[0].record / "routes.nc")["hits"].sel(lang=["clone 1", "clone 2"]).mean("lang")
    change = 100 * (own.sel(route="pivot") - own.sel(route="own")).values
    row = routes.loc["clones", "pivot"]
    assert row["gain"] == pytest.approx(change.mean(), abs=1e-4)
    assert change.min() == change.max() or row["gain, low"] <= row["gain"] <= row["gain, high"]
    repaired = found.repaired()
    assert repaired.loc["undamaged", "recovered"] == pytest.approx(1)
    assert repaired.iloc[1]["recovered"] == pytest.approx(0)
    assert repaired.loc["random experts, highest", "margin"] >= repaired.loc["random experts, mean", "margin"]
    heavy = found.by_weight()
    assert heavy.index.tolist() == ["chosen", *CONTROLS]
    assert heavy.loc["chosen", "as heavy"] == pytest.approx(heavy.loc["chosen", "as strong"])
    cost = found.cost()
    assert cost.index.tolist() == ["chosen", "random"]
    assert np.isfinite(cost[["loss, clones", "loss, English", "exact, clones", "exact, English"]].to_numpy()).all()
    assert (cost["loss, clones, low"] < cost["loss, clones, high"]).all()


def test_without_a_gap_claims_are_not_judged(grid):
    found = Skill(grid)
    row = found.prerequisites().loc[0]
    assert row["lag"] == pytest.approx(row["English"] - row["clones"])
    assert row["lag"] < 15, "a toy answers nothing"
    assert "clones lag English by" in found.unmet()
    assert set(map(type, found.claims().values())) == {NotTestable}
    assert "the situation of the source is not there" in str(found.claims()["R6"])


def test_what_is_not_made_is_named(grid, monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path)
    found = Skill(grid)
    assert "mechanism train --grid skill" in str(found.claims()["R7"])
    assert found.prerequisites().empty
    assert found.routes().empty


def test_a_branch_begins_with_the_weights_of_its_base(grid):
    (run,) = grid.runs("English alone")
    shop = grid.workshop()
    trainer = shop.trainer(run)
    assert trainer.step == 0
    state = shop._begun(run).state
    for name, value in trainer.model.named_parameters():
        np.testing.assert_array_equal(value.detach().numpy(), state[f"model.{name}"].float().numpy())


def test_the_committed_grid_is_what_was_planned():
    grid: Any = load_grid("skill")
    assert grid.size() == 5
    assert [run.everywhere for _, _, run in grid.planned()] == [False] * 4 + [True]
    first = grid.run("first try", 0)
    assert (first.problems, first.train.tokens, first.hash) == (0.5, 3_000_000, "5014738db06b")
    assert grid.run("English alone", 0).train.model == load_grid("clones").run("base", 0).train.model
    assert len({run.hash for _, _, run in grid.planned()}) == 5
