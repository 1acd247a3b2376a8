"""The article's formulas, the completed ones, and counts of built models."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import sympy as sp
import torch

from mechanism.nn.experts import Experts
from mechanism.nn.lm import LMConfig
from mechanism.study.p_cross_lingual import parameter_formulas as e
from mechanism.study.p_cross_lingual import source
from mechanism.study.p_cross_lingual.calculator import FORMULAS, Sizes, calculate, form
from mechanism.study.p_cross_lingual.expressivity import (
    SubsetCheck,
    counter_example,
    every_expert,
    least_error,
    ridge_kernel,
    separating_points,
)

from ...nn.oracles import expert


def test_the_fifth_is_five_twenty_fourths_if_an_expert_is_a_layer():
    ratio = e.tuned_ratio().subs(source.EXAMPLE)
    assert ratio.subs(source.EXPERT, source.LAYER) == sp.Rational(5, 24)
    assert e.tuned_ratio(e.TUNED_LAYERS).subs(source.EXAMPLE).subs(source.EXPERT, source.LAYER) == 5


def test_counted_ratio_follows_the_completed_formula():
    assert e.counted_tuned_ratio(2, 3, 24) == 5
    assert e.counted_tuned_ratio(1, 1, 3, expert_share=0.25) == 0.5


def test_tuned_parameters_are_linear_in_languages_not_sublinear():
    assert not e.tuned_ratio().has(source.LANGUAGES)
    assert sp.diff(source.TUNED_PRINTED, source.LANGUAGES, 2) == 0
    assert sp.limit(e.tuned_ratio(e.TUNED_ONCE), source.LANGUAGES, sp.oo) == source.OWN * source.EXPERT / source.LAYER


def test_growth_of_one_and_a_half_needs_170_shared_experts_for_each_own_one():
    found = e.shared_experts_for(1.5)
    assert found == 170 * source.OWN
    experts = (source.OWN * source.LANGUAGES + found).subs(source.OWN, 1)
    assert experts.subs(source.LANGUAGES, 100) / experts.subs(source.LANGUAGES, 10) == sp.Rational(3, 2)
    assert float(10 ** e.growth_exponent(1.5)) == pytest.approx(1.5)


def test_counts_agree_with_the_completed_formulas_everywhere_and_with_the_printed_ones_nowhere_for_moe():
    table = e.counted()
    found = e.agreement(table)
    assert (found["completed"] == 1).all()
    assert found["printed"].to_dict() == {"active, MoE": 0, "held, MoE": 0, "held, a model per language": 1}


@pytest.mark.parametrize(("width", "experts"), [(2, 3), (4, 5), (16, 20)])
def test_the_least_error_is_that_of_the_best_functions_of_drawn_directions(width, experts):
    rng = np.random.default_rng(0)
    directions, points = (rng.standard_normal((1500, width)) for _ in range(2))
    directions, points = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (directions, points))
    energy = np.linalg.svd(np.maximum(directions @ points.T, 0), compute_uv=False) ** 2
    drawn = np.sqrt(1 - energy[:experts].sum() / energy.sum())
    assert least_error(width, experts) == pytest.approx(drawn, rel=0.03)


def test_without_experts_all_is_left_and_with_many_nothing():
    assert least_error(64, 0) == 1
    assert least_error(2, 120) < 0.001
    assert least_error(64, 120) > 0.1


def test_counter_example_is_outside_the_span():
    found = counter_example()
    assert (found["rank"], found["rank with target"]) == (4, 5)
    values, target = separating_points()
    assert values.row_join(target).rank() == values.rank() + 1
    angle = np.linspace(0, 2 * np.pi, 100_001)[:-1]
    experts = np.maximum(0, [np.cos(angle), -np.cos(angle), np.sin(angle), -np.sin(angle)]).T
    wanted = np.maximum(0, np.cos(angle) + np.sin(angle))
    fitted = experts @ np.linalg.lstsq(experts, wanted, rcond=None)[0]
    distance = np.linalg.norm(wanted - fitted) / np.linalg.norm(wanted)
    assert float(found["distance"]) == pytest.approx(distance, abs=1e-6)
    assert distance > 0.05


@pytest.mark.parametrize("angle", [0.0, 0.7, 2.0, 3.1])
def test_ridge_kernel_is_the_mean_over_the_circle(angle):
    theta = np.linspace(0, 2 * np.pi, 20_001)[:-1]
    mean = (np.maximum(0, np.cos(theta)) * np.maximum(0, np.cos(theta - angle))).mean()
    assert float(ridge_kernel(sp.Float(angle))) == pytest.approx(mean, abs=1e-6)


def test_every_expert_is_each_expert():
    experts, x = Experts(3, 4, 5, "relu").double(), torch.randn(6, 4, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(every_expert(experts, x), torch.stack([expert(experts, i, x) for i in range(3)]))


def test_more_experts_approximate_better_and_a_token_needs_as_many_as_it_is_wide():
    table = SubsetCheck(widths=(2, 8), sizes=(1, 4, 32), tokens=64, repeats=1)()
    error = table.set_index(["weights", "width", "experts"])["error"].sort_index()
    for weights in ("constant", "per token"):
        assert (error.loc[weights, 2].loc[[1, 4, 32]].diff().dropna() < 1e-9).all()
    assert error["per token", 2, 4] < 1e-9
    assert error["per token", 8, 4] > 0.01
    assert error["constant", 8, 32] > 0.1


def lm(sizes: Sizes, **options: int) -> LMConfig:
    return LMConfig(
        sizes.vocab, sizes.hidden, sizes.layers, sizes.hidden // sizes.head_dim, sizes.head_dim, sizes.experts,
        sizes.top_k, sizes.width,
    ) if not options else replace(lm(sizes), **options)  # fmt: skip


def test_calculator_counts_as_the_models_do():
    sizes = Sizes(3, 2, 16, 12, 5, 2, 1, vocab=61, head_dim=8, length=9)
    table = calculate(sizes)
    moe, dense = lm(sizes), lm(sizes, experts=0)
    built = moe.build()
    assert table.loc["MoE", "total"] == moe.parameters() == sum(p.numel() for p in built.parameters())
    assert table.loc["MoE", "active"] == moe.active_parameters()
    assert table.loc["MoE", "flops"] == sum(part.flops for part in moe.parts(9).values())
    assert table.loc["dense", "total"] == dense.parameters()
    assert table.loc["dense", "flops"] == sum(part.flops for part in dense.parts(9).values())
    assert table.loc["per language", "total"] == 3 * dense.parameters()
    tuned = sum(p[:1].numel() if p.ndim == 3 else p.numel() for n, p in built.named_parameters() if ".mlp." in n)
    assert table.loc["MoE", "tuned"] == tuned
    assert table.loc["MoE", "GiB bfloat16"] == 2 * moe.parameters() / 2**30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": 0}, "languages must be at least 1"),
        ({"top_k": 65}, "top_k is 65; it cannot exceed the 64 experts"),
        ({"tuned_experts": 100}, "tuned_experts is 100"),
        ({"head_dim": 60}, "do not divide the width 1024"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(Sizes(), **change)


def test_the_form_asks_nobody_and_holds_the_same_formulas():
    page = form(Sizes())
    assert not re.search(r"https?:|src=|import ", page)
    for formulas in FORMULAS.values():
        assert all(sp.jscode(formula) in page for formula in formulas.values())


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the form's formulas")
def test_the_forms_formulas_compute_the_table():
    sizes = Sizes(3, 2, 16, 12, 5, 2, 1, vocab=61, head_dim=8, length=9)
    (formulas,) = re.findall(r"const formulas = (.*?);\n", form(sizes), re.DOTALL)
    call = ", ".join(map(str, sizes.values().values()))
    done = subprocess.run(
        ["node", "-p", f"JSON.stringify(({formulas})({call}))"], capture_output=True, text=True, check=True
    )
    wanted = {kind: list(row[:4]) for kind, row in zip(calculate(sizes).index, calculate(sizes).values, strict=True)}
    assert json.loads(done.stdout) == wanted
