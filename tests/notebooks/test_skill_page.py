"""The page on a skill learnt in one language finds what was planted in its records, and says what is missing."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from mechanism.report.files import NOTEBOOKS
from mechanism.report.verdicts import Verdict
from mechanism.study.base import runs as training_runs
from mechanism.study.base.probe_log import write_stats
from mechanism.study.base.trials import matched
from mechanism.study.grid.run import RESULT
from mechanism.study.grids import load_grid
from mechanism.study.r_multilingual.planted_steering import EXPERT, LAYER, TRIED, planted
from mechanism.study.r_multilingual.steering import expert_frequencies, steer
from mechanism.study.r_multilingual.steering_checks import by_routes, by_weight, cost, generated, repaired
from mechanism.study.r_multilingual.steering_plan import UNEDITED, SteeringPlan
from mechanism.study.skill.grid import SkillRun
from tests.notebooks.cells import execute

from ..study.clones.planted import planned

PAGE = NOTEBOOKS / "13_skill_in_one_language.ipynb"
pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture
def grid(tmp_path, monkeypatch) -> Any:
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    planned(tmp_path)
    fields = {
        "made_by": "skill.grid", "base": {"grid": str(tmp_path / "planted.yaml"), "cell": "base"},
        "train": {"tokens": 512, "batch": 4, "length": 32, "compile": False}, "problems": 0.5, "seeds": 3,
        "cells": {"English alone": {}}, "rules": {},
    }  # fmt: skip
    (tmp_path / "skill.yaml").write_text(yaml.safe_dump(fields))
    return load_grid(str(tmp_path / "skill.yaml"))


@cache
def measured(seed: int) -> dict[str, xr.Dataset]:
    """Tables on a model in which one expert alone leads to the right answer, and whose router keeps a language from it
    by an offset that steering can repair; but for answers that are written."""
    model, tokenizer, task = planted(4.0, seed)
    found = steer(model, tokenizer, task, TRIED)
    plan = SteeringPlan(expert_frequencies(model, tokenizer, task.texts, task.generic), TRIED)
    chosen = plan.grid()[found.attrs["chosen"]]
    random = matched(chosen.targets, plan.layers, plan.found["base_rate"].values, 5)
    settings = [UNEDITED, chosen.as_setting("chosen", "chosen")]
    settings += [UNEDITED.__class__({**UNEDITED.labels, "role": "random"}, settings[1].edit)]
    return {
        "steering": found,
        "generated": generated(model, tokenizer, task.test, settings),
        "weight": by_weight(model, tokenizer, task, plan, chosen, random),
        "repair": repaired(model, tokenizer, task, chosen.targets, random),
        "cost": cost(model, tokenizer, task.generic, settings),
        "routes": by_routes(model, tokenizer, task.test, "en"),
    }


def plant(run: SkillRun, lag: float = 1.0) -> None:
    """The record of the planted model; `lag`: by how much fewer exact answers other languages have."""
    tables = measured(run.train.seed)
    languages = tables["steering"]["lang"].values.tolist()
    layers, experts = tables["steering"]["task_difference"].transpose("layer", "expert").shape
    exact = np.zeros((2, len(languages), 20), dtype=np.int8)
    exact[1, 0], exact[1, 1:, : round(20 * (1 - lag))] = 1, 1
    rate = np.full((len(languages), layers, experts), 0.1)
    rate[0, LAYER, EXPERT] = 0.9
    axes = ("model", "lang", "item")
    data = {"exact": (axes, exact), "hits": (axes, exact), "rate": (("lang", "layer", "expert"), rate)}
    skill = xr.Dataset(data, {"model": ["base", "branch"], "lang": languages})
    run.record.mkdir(parents=True)
    for name, table in {**tables, "skill": skill}.items():
        write_stats(table, run.record / f"{name}.nc")
    (run.record / RESULT).write_text(json.dumps({"exact": {"en": 1.0}, "step_seconds": 1.0}))


def test_the_page_finds_what_was_planted(grid, tmp_path, capsys):
    for run in grid.runs("English alone"):
        plant(run)
    scope = execute(PAGE, grid=str(tmp_path / "skill.yaml"))
    assert set(scope["judge"].undecided) == {"R8"}, "two languages make no slope"
    assert scope["judge"].judged["R6"].verdict == Verdict.REPLICATED
    table = scope["skill"].prerequisites()
    assert table["lag"].tolist() == [100.0] * 3
    route = scope["skill"].routes().loc["clones", "pivot"]
    assert route["margin"] > route["margin, low"] > 0, "the route of the pivot reaches the expert"
    fixed = scope["skill"].repaired()["recovered"]
    assert fixed["task experts, 2"] > 0.8
    assert fixed["random experts, highest"] < 0.5
    assert "route own:" in capsys.readouterr().out


def test_without_a_gap_nothing_is_judged(grid, tmp_path):
    for run in grid.runs("English alone"):
        plant(run, lag=0.1)
    judge = execute(PAGE, grid=str(tmp_path / "skill.yaml"))["judge"]
    assert not judge.undecided
    assert {str(own.verdict) for own in judge.judged.values()} == {"not testable here"}
    assert "clones lag English by 10.0 points" in judge.table().loc["R6", "note"]


def test_a_missing_run_leaves_the_claims_undecided(grid, tmp_path):
    plant(grid.run("English alone", 0))
    judge = execute(PAGE, grid=str(tmp_path / "skill.yaml"))["judge"]
    assert set(judge.undecided) == {"R6", "R7", "R8"}
    assert "not all runs" in judge.undecided["R6"]


def test_a_run_without_steering_is_left_out_and_no_other_takes_its_place(grid, tmp_path):
    for seed, run in enumerate(grid.runs("English alone")):
        plant(run, lag=(1.0, 0.9, 0.8)[seed])
    (grid.run("English alone", 1).record / "steering.nc").unlink()
    skill = execute(PAGE, grid=str(tmp_path / "skill.yaml"))["skill"]
    assert skill.prerequisites()["lag"].to_dict() == pytest.approx({0: 100, 2: 80})
    assert set(skill.claims().values()) == {"in some models no expert passes any threshold"}


def test_without_any_run_the_page_says_so(grid, tmp_path):
    assert set(execute(PAGE, grid=str(tmp_path / "skill.yaml"))["judge"].undecided) == {"R6", "R7", "R8"}
