"""What steering is held against, on a small trained model: laws of routes, damages and weights."""

import numpy as np
import pytest

from mechanism.corpus.library import load
from mechanism.models.load import load_model
from mechanism.study.base.trials import matched
from mechanism.study.r_multilingual.steering import expert_frequencies
from mechanism.study.r_multilingual.steering_checks import (
    DAMAGE,
    REPAIRS,
    STRENGTHS,
    _aligned,
    by_routes,
    by_weight,
    cost,
    generated,
    repaired,
)
from mechanism.study.r_multilingual.steering_plan import CONTROLS, RANDOM, UNEDITED, SteeringConfig, SteeringPlan
from mechanism.study.r_multilingual.steering_tasks import TaskConfig, word_problem_task
from mechanism.trace import SoftSteer


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", "cpu")


@pytest.fixture(scope="module")
def task(tiny):
    return word_problem_task(tiny[1], load("udhr", ("en", "de")), TaskConfig(("de",), dev=10, test=10, segments=10))


@pytest.fixture(scope="module")
def plan(tiny, task):
    model, tokenizer = tiny
    return SteeringPlan(
        expert_frequencies(model, tokenizer, task.texts, task.generic), SteeringConfig(taus=(0.02, 0.05, 0.1))
    )


def test_a_route_of_its_own_changes_nothing_and_another_one_does(tiny, task):
    model, tokenizer = tiny
    same = {"en": task.test["en"], "again": task.test["en"]}
    found = by_routes(model, tokenizer, same, "en")
    for code in ("en", "again"):
        own, pivot, other = (found["margin"].sel(route=name, lang=code).values for name in found["route"].values)
        np.testing.assert_allclose(pivot, own, atol=1e-4)
        assert np.abs(other - own).max() > 1e-3
    across = by_routes(model, tokenizer, task.test, "en")["margin"]
    assert float(np.abs(across.sel(route="pivot") - across.sel(route="own")).max()) > 1e-3
    assert across.sizes == {"route": 3, "lang": 2, "item": 10}


@pytest.mark.parametrize(("length", "guide"), [(5, 5), (5, 3), (3, 5)])
def test_routes_are_laid_from_the_end(length: int, guide: int):
    found = dict(_aligned(length, guide))
    assert found[length - 1] == guide - 1
    assert len(found) == min(length, guide)
    assert {to - at for to, at in found.items()} == {length - guide}


def test_a_push_as_large_as_the_damage_repairs_it(tiny, task, plan):
    model, tokenizer = tiny
    chosen = plan.grid()[0]
    random = matched(chosen.targets, plan.layers, plan.found["base_rate"].values, 3)
    found = repaired(model, tokenizer, task, chosen.targets, random)
    roles = found["role"].values.tolist()
    assert roles == ["none", "damaged", *["task experts"] * len(REPAIRS), *["random"] * 3]
    strengths = found["strength"].values
    (whole,) = np.flatnonzero((found["role"].values == "task experts") & (strengths == DAMAGE))
    margin = found["margin"].sel(lang="en")
    apart = abs(margin - margin[0]).mean("item").values
    assert apart[1] > 0.05
    assert apart[whole] < 0.2 * apart[1], "the standard deviation is that of damaged logits, so that some is left"
    assert (apart[6:] > 0.5 * apart[1]).all()


def test_controls_are_tried_at_every_strength(tiny, task, plan):
    model, tokenizer = tiny
    chosen = plan.grid()[0]
    random = matched(chosen.targets, plan.layers, plan.found["base_rate"].values, 2)
    found = by_weight(model, tokenizer, task, plan, chosen, random)
    names = found["name"].values[1:]
    assert set(names) == {"chosen", *CONTROLS} - {RANDOM} | {f"{RANDOM} {draw}" for draw in (0, 1)}
    for name in set(names):
        own = found.isel(setting=1 + np.flatnonzero(names == name))
        assert np.abs(own["strength"].values).tolist() == list(STRENGTHS)
        if int(own["experts"][0]):
            assert (np.diff(own["moved"].values) > -1e-6).all(), "a stronger push moves more"
    assert (found["strength"].values[1:][names == "deactivation"] < 0).all()


def test_what_is_not_edited_costs_nothing_and_answers_are_generated(tiny, task, plan):
    model, tokenizer = tiny
    chosen = plan.grid()[0].as_setting("chosen", "chosen")
    settings = [UNEDITED, chosen, UNEDITED]
    texts = {code: own[:3] for code, own in task.generic.items()}
    found = cost(model, tokenizer, texts, settings)["nll"]
    np.testing.assert_allclose(found[0], found[2])
    assert float(np.abs(found[1] - found[0]).max()) > 0
    assert isinstance(chosen.edit, SoftSteer)
    items = {code: own[:2] for code, own in task.test.items()}
    exact = generated(model, tokenizer, items, settings[:2])["exact"]
    assert exact.sizes == {"setting": 2, "lang": 2, "item": 2}
    assert set(np.unique(exact)) <= {0, 1}
