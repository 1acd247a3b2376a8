"""The protocol of steering and re-weighting on scores whose truth is planted."""

import numpy as np
import pytest
import xarray as xr

from mechanism.corpus.tasks import ChoiceItem
from mechanism.measure.paired_gain import PairedGain
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.models.choices import EditedChoices
from mechanism.models.load import load_model
from mechanism.study.base.trials import Setting, Trials, attempt, choose, matched, spread
from mechanism.trace import Activate, SoftSteer
from mechanism.trace.families import tiny_model

NAN = np.nan


def items(group: str, count: int = 2) -> list[ChoiceItem]:
    return [ChoiceItem(f"{i}", f"{group}{i}", f"{group} {i} is", (" four", " five", " six"), 1) for i in range(count)]


def test_each_group_gets_its_own_edit():
    model, tokenizer = load_model("tiny", "cpu")
    one, other = SoftSteer(((2, 3),), strength=2.0), SoftSteer(((1, 0),), strength=-2.0)
    own = Setting({"name": "own"}, {"a": one, "b": other})
    settings = [Setting({"name": "none"}), own, Setting({"name": "a"}, one)]
    found = attempt(EditedChoices(model, tokenizer), {"a": items("a"), "b": items("b", 3)}, settings, per_byte=["b"])
    assert found["name"].values.tolist() == ["none", "own", "a"]
    assert found["group"].values.tolist() == ["a"] * 2 + ["b"] * 3
    assert found["cluster"].values.tolist() == ["a0", "a1", "b0", "b1", "b2"]
    each, same = found["margin"].values[1:]
    np.testing.assert_allclose(each[:2], same[:2], atol=1e-4)
    assert (np.abs(each[2:] - same[2:]) > 1e-3).all(), "the other group's edit is another"
    assert found["moved"].values[0] == 0
    whole = attempt(EditedChoices(model, tokenizer), {"b": items("b", 3)}, settings[:1])
    assert not np.isclose(whole["margin"].values, found["margin"].values[0, 2:]).any(), "scores are not per byte"


def test_what_a_router_refuses_is_missing():
    tokenizer = load_model("tiny", "cpu")[1]
    model = tiny_model("llama4_text", vocab_size=len(tokenizer))
    edit = Activate(((1, 0), (1, 1)))
    scorer = EditedChoices(model, tokenizer)
    found = attempt(scorer, {"a": items("a")}, [Setting({"n": 0}), Setting({"n": 1}, edit)])
    assert found["hit"].notnull().all("item").values.tolist() == [True, False]
    assert edit in scorer.refused


def test_scores_are_spread_over_groups():
    flat = np.arange(5.0)[None]
    parallel = spread(flat, ["en", "en", "de", "de", "sw"], ["x", "y", "y", "z", "x"])
    np.testing.assert_array_equal(parallel[0], [[0, 1, NAN], [NAN, 2, 3], [4, NAN, NAN]])
    own = spread(flat, list("aabbb"))
    np.testing.assert_array_equal(own[0], [[0, 1, NAN, NAN, NAN], [NAN, NAN, 2, 3, 4]])


def test_the_choice_takes_the_best_on_average_over_groups_and_skips_refused():
    base = np.array([[1, 1, NAN], [0, 0, 0]])
    hits = np.stack([base, base, np.full_like(base, NAN), base])
    hits[1, 1], hits[3, 1] = 1, [1, 1, 0]
    assert choose(hits) == 1
    assert choose(hits[[0, 2, 3], 1:]) == 2
    assert choose(hits[2:3]) is None


def test_groups_count_equally_and_margins_decide_among_equals():
    """Right on three items of one group, and twice on the one item of the other."""
    hits = spread(np.array([[1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1.0]]), list("aaab"))
    margins = 2 * hits - 1
    margins[2] += 0.5
    assert choose(hits, margins) == 2
    assert choose(hits[:2], margins[:2]) == 0, "the first of two that are alike"
    assert choose(hits) == 0


def test_random_experts_are_of_the_same_layers():
    targets = ((2, 1), (2, 3), (5, 0))
    frequency = np.random.default_rng(0).random((3, 8))
    drawn = matched(targets, [0, 2, 5], frequency, 4)
    assert len(set(drawn)) > 1
    for one in drawn:
        assert [layer for layer, _ in one] == [2, 2, 5]
        assert not set(one) & set(targets)
    assert drawn != matched(targets, [0, 2, 5], frequency, 4, seed=1)


@pytest.fixture
def trials() -> Trials:
    """Of two groups, the second gains on half of its items under the second setting; the third is refused."""
    base = np.array([[1.0] * 8, [0.0] * 8])
    better = base.copy()
    better[1, ::2] = 1
    hits = np.stack([base, better, np.full_like(base, NAN)])
    data = xr.Dataset(coords={"name": ("setting", ["none", "b", "b"]), "x_at": ("setting", [0, 1, 2])})
    data = data.assign_coords(cluster=("item", np.arange(8) // 2))
    return Trials(data, hits, ["a", "b"], PairedGain(ClusterBootstrap(n_boot=50), n_perm=50))


def test_gains_by_group_and_on_average(trials: Trials):
    assert trials.settings(name="b") == [1, 2]
    assert trials.settings("x_", at=2) == [2]
    assert (trials.accuracy(0), trials.accuracy(1)) == (0.5, 0.75)
    found = trials.gain(1)
    assert found is not None
    assert (found.gain.estimate, found.clusters, found.items) == (0.25, 4, 8)
    assert trials.gain(2) is None
    table = trials.by_group(1, ["b", "a"])
    assert table["gain"].tolist() == [0.5, 0]
    assert table["edited"].tolist() == [0.5, 1]
    assert (table["q"] >= table["p"]).all()
    assert trials.random_gains([0, 1]).tolist() == [0, 0.25]
