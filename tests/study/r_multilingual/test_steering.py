"""Steering on models whose truth is planted, on scores without any effect, and on other families."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import t as student
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mechanism.corpus.library import committed, load
from mechanism.corpus.store import CorpusError
from mechanism.corpus.tasks import ChoiceItem
from mechanism.measure.evidence import Evidence, NotTestable
from mechanism.measure.gap import GapSlope
from mechanism.measure.paired_gain import PairedGain
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.measure.units import Units
from mechanism.models.load import ModelError, load_model
from mechanism.study.base import records
from mechanism.study.base import runs as training_runs
from mechanism.study.base.records import stored
from mechanism.study.base.trials import choose
from mechanism.study.r_multilingual import steering
from mechanism.study.r_multilingual.source import beside_source, point_by_point
from mechanism.study.r_multilingual.steering import TASKS, steer, task_study
from mechanism.study.r_multilingual.steering_plan import DOSED, METHODS, Method, SteeringConfig
from mechanism.study.r_multilingual.steering_results import CONTROLS, SteeringResults, claims
from mechanism.study.r_multilingual.steering_tasks import (
    SteeringTask,
    TaskConfig,
    common_items,
    domain_task,
    word_problem_task,
)
from mechanism.trace import InterventionError, ScaleWeight
from mechanism.trace.families import tiny_model

WORDS = [f"w{i}" for i in range(80)]
CHOICES = ("A", "B", "C", "D")
LAYER, EXPERT = 2, 5
QUICK = PairedGain(ClusterBootstrap(n_boot=300), n_perm=200)
TRIED = SteeringConfig(
    taus=(0.3,), strengths=(1.0,), windows=((1 / 3, 2 / 3),), draws=20, widths=(4,), doses=(-1.0, 1.0)
)


def word_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", "<unk>", "task", *CHOICES, *WORDS])}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


@torch.no_grad()
def planted(effect: float) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A model of which one expert alone adds anything to the residual stream: the direction of answer A. The word
    `task` always selects it, other words seldom."""
    model, tokenizer = tiny_model("qwen3_moe"), word_tokenizer()
    embedding = model.get_input_embeddings().weight
    embedding[:, 0], embedding[:, 1] = 1.0, 0.0
    embedding[tokenizer.convert_tokens_to_ids("task"), 1] = 3.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.experts.down_proj.zero_()
    block = model.model.layers[LAYER].mlp
    block.gate.weight[EXPERT] = 0
    block.gate.weight[EXPERT, 1] = 5.0
    block.experts.gate_up_proj[EXPERT] = 0
    block.experts.gate_up_proj[EXPERT, :, 0] = 2.0
    head = model.get_output_embeddings().weight
    a, *others = (head[i] for i in tokenizer.convert_tokens_to_ids(list(CHOICES)))
    block.experts.down_proj[EXPERT, :, 0] = effect * (a - sum(others) / 3)
    return model, tokenizer


def planted_task(seed=0, items=48) -> SteeringTask:
    rng = np.random.default_rng(seed)

    def say(count):
        return " ".join(rng.choice(WORDS, count))

    def side(name):
        contexts = [[say(3) for _ in range(items)] for _ in range(3)]
        return {
            code: [ChoiceItem(f"{name}{i}", f"{name}{i}", text, CHOICES, 0) for i, text in enumerate(own)]
            for code, own in zip(("en", "xx", "yy"), contexts, strict=True)
        }

    generic = {code: [say(8) for _ in range(20)] for code in ("en", "xx", "yy")}
    texts = tuple(f"task {say(2)} task {say(1)} task" for _ in range(20))
    return SteeringTask("planted", "en", texts, generic, side("dev"), side("test"))


@pytest.fixture(scope="module")
def strong() -> SteeringResults:
    return SteeringResults(steer(*planted(0.6), planted_task(), TRIED), QUICK, GapSlope(n_boot=100))


def test_the_planted_expert_is_found_and_steering_it_works(strong: SteeringResults):
    assert f"{LAYER}.{EXPERT}" in str(strong.data["targets"].values[strong.chosen]).split()
    found = strong.claims()["R6"]
    assert isinstance(found, Evidence)
    assert found.estimate > 20
    assert found.low > 0
    assert found.estimate > found.null
    assert abs(strong.null).max() < found.estimate / 200, "random experts do not do it"
    table = strong.by_language()
    assert list(table.index) == ["en", "xx", "yy"]
    assert (table["gain"] > 0.2).all()


def test_controls_and_doses_of_the_planted_expert(strong: SteeringResults):
    controls = strong.controls()
    assert set(controls.index) == {"chosen", *CONTROLS}
    assert controls.loc["all layers", "gain"] > 0.2, "the planted expert is among them"
    assert abs(controls.loc[["earlier layers", "later layers"], "gain"]).max() < 0.05
    assert controls.loc["deactivation", "gain"] <= 0
    dose = strong.dose()
    assert dose.loc[1.0, "margin"] > 0 >= dose.loc[-1.0, "margin"]
    assert dose.loc[1.0, "margin_low"] > 0
    assert strong.chance().empty, "hard steering was chosen, which has no strength"
    kinds = strong.data["kind"].values.astype(object)
    kinds[strong.chosen] = DOSED
    soft = SteeringResults(strong.data.assign_coords(kind=("setting", kinds)))
    (chance,) = soft.chance().reset_index().to_dict("records")
    assert chance["strength"] == strong.data["strength"].values[strong.chosen]
    assert chance["low"] <= chance["gain"] <= chance["high"] == pytest.approx(strong.summary()["null"])
    assert chance["margin_low"] <= chance["margin"] <= chance["margin_high"] < dose.loc[1.0, "margin"]
    told = point_by_point(strong).set_index("the source")["as the source"]
    assert told.iloc[0] == "yes"
    assert told["all layers: accuracy falls"] == "no"
    table = beside_source([("planted", 4, strong)])
    assert (table.index == ["source"] * 6 + ["here"]).all()
    assert table.iloc[-1]["steered"] > table.iloc[-1]["base"] + 20


def test_other_analyses_hold_the_chosen_setting_and_every_control(strong: SteeringResults):
    found, judged = strong.cells(), strong.claims()["R6"]
    assert isinstance(judged, Evidence)
    assert isinstance(units := judged.checked().units, Units)
    assert units.n == judged.n
    test = [own for own in found["R6"] if own.choices["items"] == "test" and own.choices["languages"] == "all"]
    assert test[0].evidence == judged._replace(note="", null=test[0].evidence.null, units="")
    assert test[0].evidence.null == pytest.approx(judged.null)
    strengths = {own.choices["steering"] for own in test}
    assert len(strengths) == len(test), "every dose once, upwards only"
    grid = [own for own in found["R6"] if own.choices["items"] == "dev" and own.choices["languages"] == "all"]
    assert len(grid) == strong.data.sizes["grid"] - 1
    controls = strong.controls()["gain"]
    alone = {own.choices["control"]: own.evidence for own in found["R7"] if own.choices["languages"] == "all"}
    for name in CONTROLS:
        assert np.isnan(controls[name]) or alone[name].estimate == pytest.approx(100 * controls[name])
    assert {own.choices["languages"] for own in found["R7"]} == {"all", "those that lag", "those that lead"}


def test_claims_over_training_seeds_rest_on_seeds_and_their_common_items(strong: SteeringResults):
    """A gain that every seed shows is one; a gain of two in three leaves open what a fourth would show."""
    twice = strong.data.sel(lang=["xx", "yy"]).assign_coords(lang=["zz", "ww"])
    data = xr.concat(
        [strong.data, twice], "lang", data_vars="minimal", coords="minimal", compat="override", join="exact"
    )
    useless = data.copy(deep=True)
    useless["hits"][:] = useless["hits"].values[[strong.unedited]]
    own, none = (SteeringResults(one, QUICK, strong.slope) for one in (data, useless))
    alone, same, mixed = (claims(models) for models in ([own], [own] * 3, [own, own, none]))
    for name in ("R6", "R7", "R8"):
        one, three = alone[name], same[name]
        assert isinstance(one, Evidence)
        assert isinstance(three, Evidence)
        assert three.n == 3
        assert three.estimate == pytest.approx(one.estimate)
        assert three.null == pytest.approx(one.null, rel=0.2, nan_ok=True)
        units = len(own.compared) if name == "R8" else own.data.sizes["item"]
        wider = student.ppf(0.975, units - 1) / student.ppf(0.975, 10**6)  # of so few units, by Student's
        assert three.high - three.low == pytest.approx(wider * (one.high - one.low), rel=0.2), "resampled once for all"
    found, one = mixed["R6"], alone["R6"]
    assert isinstance(found, Evidence)
    assert isinstance(one, Evidence)
    assert found.estimate == pytest.approx(2 / 3 * one.estimate)
    assert found.low < 0 < found.high
    assert isinstance(mixed["R8"], NotTestable)
    other = SteeringResults(data.assign_coords(cluster=[f"{one} again" for one in data["cluster"].values]), QUICK)
    with pytest.raises(ValueError, match="not answered the same items"):
        claims([own, other])


def test_other_seeds_take_part_where_all_is_recorded(strong: SteeringResults, tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path)
    monkeypatch.setattr(records, "training_run", lambda spec: "main")
    monkeypatch.setattr(steering, "make_task", lambda *args: None)
    monkeypatch.setattr(steering, "steer", lambda *args: strong.data)
    model, tokenizer = load_model("tiny", "cpu")
    for task in TASKS:
        asked = task_study(task, model, tokenizer, "tiny", max_segments=10)
        for seed in ("seed1", "olmoe"):
            stored({**asked.key, "model": seed}, asked.data, partial(strong.data.assign_attrs, name=seed))
    sample = steering.study(model, tokenizer, "tiny", profile="small", max_segments=10)
    assert [len(sample.models(task)) for task in TASKS] == [1, 1], "a sample is held against no full result"
    made = steering.study(model, tokenizer, "tiny", profile="full", max_segments=10)
    assert {task: list(own) for task, own in made.seeds.items()} == {task: ["seed1"] for task in TASKS}
    assert list(made.gains(TASKS[0]).index) == ["this model", "seed1, other seed"]
    assert {cell.choices["model"] for cell in made.cells("R7")} == {"this one", "seed1"}
    judged = made.claims()["R6"]
    assert isinstance(judged, Evidence)
    assert judged.n == 2


def test_an_expert_without_effect_is_not_judged_to_have_one():
    found = SteeringResults(steer(*planted(0.0), planted_task(), TRIED), QUICK).claims()["R6"]
    assert isinstance(found, Evidence)
    assert [found.estimate, found.low, found.high, found.null] == [0, 0, 0, 0]


def synthetic(rng: np.random.Generator, settings=24, draws=50, shape=(4, 40), change=0.15, leak=False) -> xr.Dataset:
    """Scores of edits that change items without making them better: each changed item is drawn anew."""

    def edited(base, count):
        fresh, moved = rng.random((count, *base.shape)) < 0.4, rng.random((count, *base.shape)) < change
        return np.where(moved, fresh, base).astype(np.int8)

    dev, test = (rng.random((2, *shape)) < 0.4).astype(np.int8)
    grid, tried, random = edited(dev, settings), edited(test, settings), edited(test, draws)
    best = choose((tried if leak else grid)[:, 1:].astype(float))
    assert best is not None
    hits = np.concatenate([test[None], tried[best][None], random])
    roles = ["none", "chosen", *["random"] * draws]
    about: dict[str, list] = {"role": roles, "name": roles, "layers": ["1"] * len(roles), "kind": ["soft"] * len(roles)}
    about |= {"tau": [0.3] * len(roles), "strength": [0.5] * len(roles), "experts": [1] * len(roles)}
    coords = {name: ("setting", values) for name, values in about.items()}
    where = {"lang": ["en", *"abcdefghijklm"][: shape[0]], "cluster": ("item", np.arange(shape[1]))}
    return xr.Dataset({"hits": (("setting", "lang", "item"), hits)}, coords | where, {"pivot": "en", "task": "none"})


def replicated(data: xr.Dataset) -> bool:
    found = SteeringResults(data, PairedGain(ClusterBootstrap(n_boot=200), n_perm=1))
    gain = found.summary()
    return gain["low"] > 0 and gain["gain"] > gain["null"]


def test_false_positives_of_the_whole_procedure():
    """Choosing the best of 24 useless settings on dev items and judging it on test items finds an effect in at most
    5 % of runs; choosing on the test items themselves finds one far more often."""
    rng = np.random.default_rng(0)
    honest = np.mean([replicated(synthetic(rng)) for _ in range(200)])
    leaking = np.mean([replicated(synthetic(rng, leak=True)) for _ in range(50)])
    assert honest <= 0.05
    assert leaking > 0.15


def test_random_experts_that_win_in_some_languages_what_they_lose_in_others_gain_nothing():
    """Means over languages in floats can be off by 1e-16, which a claim's null would show."""
    rng = np.random.default_rng(0)
    data = synthetic(rng, shape=(14, 300), change=0.0)
    for own in data["hits"].values[2:]:
        others = rng.permutation(np.arange(1, 14))
        for wins, loses in zip(others[:6], others[6:], strict=False):
            own[wins, own[wins].argmin()], own[loses, own[loses].argmax()] = 1, 0
    found = SteeringResults(data)
    assert found.accuracy(2, ["a"]) != found.accuracy(0, ["a"])
    assert (found.null == 0).all()


def test_items_are_parallel_and_in_as_many_languages_as_possible():
    corpus = committed("tech")
    config = TaskConfig(("de", "el", "km", "xx"), 12, 12)
    task = domain_task(load_model("tiny", "cpu")[1], corpus, committed("udhr"), config)
    assert task.languages == ("en", "de", "el")
    assert "does not have it" in task.left_out["xx"]
    assert "ten are the fewest" in task.left_out["km"]
    ids = [{item.id for item in own} for own in task.test.values()]
    assert ids[1] <= ids[0]
    assert len(ids[0] & ids[1] & ids[2]) >= 10
    assert not ids[0] & {item.id for item in task.dev["en"]}
    few, more = (common_items(task.test, "en", n) for n in (5, 10))
    assert {i.id for i in few["en"]} < {i.id for i in more["en"]}


def test_text_without_splits_is_shared_out(tmp_path):
    for code, word in (("en", "line"), ("sw", "mstari")):
        (tmp_path / f"{code}.txt").write_text("".join(f"{word} {i} {'x' * (i % 7)}\n" for i in range(50)), "utf-8")
    tokenizer, generic, config = load_model("tiny", "cpu")[1], committed("udhr"), TaskConfig(dev=12, test=12)
    task = domain_task(tokenizer, load(str(tmp_path)), generic, config)
    assert {item.id for item in task.dev["sw"]}.isdisjoint(item.id for item in task.test["sw"])
    assert len(task.dev["sw"]) == 12
    with pytest.raises(CorpusError, match="cannot be both"):
        domain_task(tokenizer, generic, generic, config)


def test_bad_requests():
    model, tokenizer = planted(0.5)
    with pytest.raises(InterventionError, match=r"layers \[9\] have no router"):
        steer(model, tokenizer, planted_task(), SteeringConfig(layers=(1, 9)))
    with pytest.raises(ModelError, match=r"no expert of layers .* passes a threshold of 0.99"):
        steer(model, tokenizer, planted_task(), SteeringConfig(taus=(0.99,)))
    with pytest.raises(ValueError, match="ten are the fewest"):
        TaskConfig(dev=5)
    with pytest.raises(CorpusError, match="no language but 'en'"):
        word_problem_task(load_model("tiny", "cpu")[1], committed("udhr"), TaskConfig(("ko",)))
    letters = word_tokenizer()
    with pytest.raises(CorpusError, match="knows less than half"):
        word_problem_task(letters, committed("udhr"), TaskConfig(("de",)))


def test_a_chat_template_wraps_problems_and_generic_text_alike():
    tokenizer = load_model("tiny", "cpu")[1]
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    task = word_problem_task(tokenizer, committed("udhr"), TaskConfig(("de",)))
    assert task.chat
    assert task.test["de"][0].context.startswith("<user> ")
    assert task.test["de"][0].context.endswith("?\n<assistant> ")
    assert task.texts[0].count("<user>") == task.texts[0].count("<assistant>") == 1
    assert all(text.startswith("<user> ") for text in task.generic["de"])


def test_a_result_is_recorded_once(tmp_path, monkeypatch):
    monkeypatch.setattr("mechanism.study.base.runs.RUNS", tmp_path)
    made = steer(*planted(0.6), planted_task(), TRIED)
    monkeypatch.setattr(steering, "steer", lambda *args: made)
    monkeypatch.setattr(steering, "make_task", lambda *args: None)
    model, tokenizer = load_model("tiny", "cpu")
    study = task_study(TASKS[0], model, tokenizer, "tiny", max_segments=10)
    assert study.recorded() is None
    assert study.awaits(study.result()).endswith("model=tiny --parameter profile=full"), "a sample"
    kept = study.result("full")
    assert task_study(TASKS[1], model, tokenizer, "tiny").recorded() is None
    assert task_study(TASKS[0], model, tokenizer, "tiny", seed=1).recorded() is None
    monkeypatch.setattr(steering, "steer", lambda *args: pytest.fail("it is recorded"))
    again = study.result()
    assert study.awaits(again) == ""
    xr.testing.assert_identical(kept, again)
    assert SteeringResults(again, QUICK).claims() == SteeringResults(made, QUICK).claims()


def test_a_new_method_is_one_entry(monkeypatch):
    """It is chosen and tried like the others, named in tables, and has a record of its own."""
    lift = Method(lambda targets, strength: ScaleWeight(targets, factor=2**strength), lambda config: (3.0,))
    monkeypatch.setitem(METHODS, "lift", lift)
    data = steer(*planted(0.6), planted_task(), replace(TRIED, strengths=(), hard=False))
    found = SteeringResults(data, QUICK)
    assert set(data["grid_kind"].values[1:]) == {"lift"}
    assert found.describe(found.chosen)["steering"] == "lift 3"
    assert found.controls().loc["deactivation", "steering"] == "lift -3"
    assert (data["moved"].values[found.settings(role="random")] >= 0).all()
    assert data["moved"].values[found.chosen] > 0
    assert task_study(TASKS[0], *load_model("tiny", "cpu"), "tiny").key["methods"] == ["lift"]
