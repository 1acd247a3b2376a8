from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from mechanism.corpus.store import CorpusError
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.measure.units import Units
from mechanism.study.base import runs as training_runs
from mechanism.study.d_domains import reweighting
from mechanism.study.d_domains.reweighting import ReweightingConfig, reweight
from mechanism.study.d_domains.reweighting_plan import DOMAIN, DRIVER, RANDOM, ExpertSets, Way, strongest, tasks
from mechanism.study.d_domains.reweighting_results import Reweighted
from mechanism.study.d_domains.sweep import ablation_effect
from mechanism.trace import ScaleWeight

from .. import planted

CONFIG = ReweightingConfig(
    ("code", "law", "news"), items=3, count=8, texts=2, factors=(0.5, 2.0), shares=(0.125,), doses=(0.0, 2.0), n_draws=3
)


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return reweight(planted.model("law"), planted.tokenizer(), planted.corpora(documents=24), CONFIG)


def test_the_experts_of_the_planted_domain_are_the_ones_that_are_scaled(found: xr.Dataset):
    law = found["domain_set"].sel(task="law").values
    assert np.argwhere(law).tolist() == [[planted.LAYER, e] for e in planted.SERVING]
    assert int(found["driver_set"].sum()) == 2


def test_every_setting_is_tried_on_every_item_and_text(found: xr.Dataset):
    assert found.sizes["dev_setting"] == 1 + 2 * 2
    assert set(found["kind"].values) == {"none", DOMAIN, DRIVER, *RANDOM.values()}
    assert found["margin"].notnull().all()
    assert (found["margin"].where(~found["hit"], -1) <= 0).all(), "a miss has at most half of the probability"
    assert (found["margin"].where(found["hit"], 0) >= -np.log(3) - 1e-9).all(), "a hit has at least a quarter"
    pivot = found["text_lang"] == "en"
    assert found["nll"].isel(text=pivot.values).notnull().all()
    other = found["nll"].isel(text=~pivot.values)
    random = found["text_draw"].values >= 0
    assert other.isel(text_setting=random).isnull().all()
    chosen = np.isclose(found["text_factor"], float(found["chosen_factor"].sel(chosen=DRIVER)))
    assert other.isel(text_setting=chosen & (found["text_kind"].values == DRIVER)).notnull().all()


def test_domain_experts_move_the_text_of_their_domain_and_no_other(found: xr.Dataset):
    """Experts that only the words of `law` select: nothing else can change when they are scaled."""
    table = Reweighted(found, ClusterBootstrap(n_boot=50)).side_effects().set_index(["of", "domain"])
    assert table.loc[("law", "law"), "estimate"] != 0
    assert (table.loc[[("law", "code"), ("law", "news")], ["estimate", "low", "high"]] == 0).all(axis=None)


def test_results_are_differences_to_the_same_items(found: xr.Dataset):
    results = Reweighted(found, ClusterBootstrap(n_boot=200))
    gains = results.gains()
    hits = found["hit"].astype(float).groupby("task_of").mean()
    for kind in (DOMAIN, DRIVER):
        at = np.flatnonzero((found["kind"] == kind) & (found["factor"] == float(gains.loc[kind, "factor"])))[0]
        expected = 100 * float((hits.isel(setting=at) - hits.isel(setting=0)).mean())
        assert gains.loc[kind, "estimate"] == pytest.approx(expected)
        assert gains.loc[kind, "accuracy"] - gains.loc[kind, "base"] == pytest.approx(expected)
        assert gains.loc[kind, "draws"] == 3
    assert set(results.doses()["factor"]) >= {0.0}
    chance = results.chance().set_index("kind")
    assert (chance["low"] <= chance["estimate"]).all()
    assert (chance["estimate"] <= chance["high"]).all()
    assert chance["high"].to_dict() == pytest.approx(results.gains()["null"].to_dict())
    assert chance["bits_low"].to_dict() == pytest.approx(results.text().set_index("kind")["null"].to_dict())
    assert set(results.by_language()["lang"]) == {"en", "xx"}
    assert set(results.text()["kind"]) == {DOMAIN, DRIVER}
    by_task = results.by_task().set_index(["kind", "task"])
    assert len(by_task) == 2 * len(set(found["task_of"].values))
    for (kind, task), row in by_task.iterrows():
        of_task = found["hit"].astype(float).sel(item=(found["task_of"] == task).values).mean("item")
        random = of_task.sel(setting=(found["kind"] == f"random for {kind}").values) - of_task[0]
        assert row["null"] == pytest.approx(100 * float(np.quantile(random, 0.95)))


def test_a_single_document_has_no_interval(found: xr.Dataset):
    own = found.isel(text=(found["text_domain"] == "law").values & (found["text_lang"] == "xx").values)
    assert own.sizes["text"] == 1
    table = Reweighted(own, ClusterBootstrap(n_boot=20)).by_language()
    assert table["estimate"].notnull().all()
    assert table[["low", "high"]].isnull().all(axis=None)


def synthetic(gain: float, random: float, items: int = 200) -> xr.Dataset:
    """A result in which both kinds gain this share of all items, and random sets that one."""
    kinds = ["none", DOMAIN, DRIVER, *[k for k in RANDOM.values() for _ in range(60)]]
    rng = np.random.default_rng(0)
    share = {"none": 0.0, DOMAIN: gain, DRIVER: gain / 2}
    right = [round(items * (0.4 + share.get(kind, random * rng.random()))) for kind in kinds]
    hit = np.arange(2 * items) % items < np.array(right)[:, None]
    coords = {
        "kind": ("setting", kinds), "factor": ("setting", [1.0] + [2.0] * (len(kinds) - 1)),
        "of": ("setting", [""] * len(kinds)),
        "draw": ("setting", [-1, -1, -1, *range(60), *range(60)]), "task_of": ("item", np.repeat(["a", "b"], items)),
        "cluster": ("item", np.arange(2 * items) // 4), "chosen": [DOMAIN, DRIVER],
    }  # fmt: skip
    data = {
        "hit": (("setting", "item"), hit),
        "margin": (("setting", "item"), hit - 0.5),
        "chosen_factor": ("chosen", [2.0, 2.0]),
        "domain_set": (("task", "layer", "expert"), np.ones((2, 1, 2), bool)),
        "driver_set": (("layer", "expert"), np.ones((1, 2), bool)),
    }
    return xr.Dataset(data, coords, {"lang": "en"})


def test_evidence_is_of_the_smaller_gain_and_p_of_the_better_one():
    found = Reweighted(synthetic(0.3, 0.05)).evidence()
    assert found.estimate == pytest.approx(15)
    assert found.low > 0
    assert found.null < 5.01
    assert found.n == 100, "documents of four items"
    assert found.p == pytest.approx(2 / 61)
    units = found.checked().units
    assert isinstance(units, Units)
    assert units.n == 100, "its mean is the gain"


def test_other_analyses_hold_the_chosen_setting():
    results = Reweighted(synthetic(0.3, 0.05))
    cells = {tuple(own.choices.values()): own.evidence for own in results.cells()}
    assert len(cells) == 2 * 3 * 2, "two kinds of experts, all tasks or one of two, two ways to count"
    gains = results.gains()
    for kind in (DOMAIN, DRIVER):
        own, row = cells[kind, "2", "all", "likeliest"], gains.loc[kind]
        assert (own.estimate, own.low, own.high, own.null) == tuple(row[["estimate", "low", "high", "null"]])
        assert cells[kind, "2", "all", "above one half"] == own, (
            "margins are above zero where the choice is the likeliest"
        )
        assert own.p == pytest.approx(2 * row["p_boot"])
    alone = cells[DRIVER, "2", "a", "likeliest"]
    assert alone.n == 50
    assert alone.estimate == pytest.approx(15)


def test_evidence_over_training_seeds_needs_a_gain_in_all_of_them():
    def over(*gains: float) -> Reweighted:
        models = [Reweighted(synthetic(gain, 0.05)) for gain in gains]
        return Reweighted(models[0].data, seeds={f"seed{i}": own for i, own in enumerate(models[1:], 1)})

    same, alone = over(0.3, 0.3, 0.3), Reweighted(synthetic(0.3, 0.05)).evidence()
    found = same.evidence()
    assert found.n == 3
    assert found.estimate == pytest.approx(15)
    assert found.null == pytest.approx(alone.null)
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.1), "documents are resampled once"
    assert found.p == pytest.approx(2 / 61), "random sets decide, as they do in one model"
    few = over(0.3, 0.0, 0.0).evidence()
    assert few.estimate == pytest.approx(5)
    assert few.low < 0 < few.p - 0.05, "one seed alone gains"
    table = same.by_seed()
    assert table["model"].tolist() == ["this model", "seed1", "seed2"] * 2
    assert {cell.choices["model"] for cell in same.cells()} == {"this one", "seed1", "seed2"}
    other = Reweighted(same.data.assign_coords(cluster=same.data["cluster"] + 1000))
    with pytest.raises(ValueError, match="not answered the same items"):
        Reweighted(same.data, seeds={"seed1": other}).evidence()


def test_no_gain_is_no_evidence():
    nothing = Reweighted(synthetic(0.0, 0.05)).evidence()
    assert nothing.estimate == 0
    assert nothing.p == 1
    no_better = Reweighted(synthetic(0.02, 0.5)).evidence()
    assert no_better.estimate < no_better.null
    assert no_better.p > 0.05


def test_random_sets_match_and_leave_the_set_alone():
    rng = np.random.default_rng(0)
    score, rate = rng.random((2, 2, 3, 8))
    cells = ("task", "layer", "expert")
    data = {"score": (cells, score), "rate": (cells, rate), "effect": (cells[1:], rng.random((3, 8)))}
    sets = ExpertSets(xr.Dataset(data, {"task": ["a", "b"], "layer": [0, 2, 5]}))
    for kind in (DOMAIN, DRIVER):
        way = Way(kind, 2.0, 0.2)
        own = sets.setting(way).on("a")
        assert isinstance(own, ScaleWeight)
        assert len(own.targets) == 5
        drawn = sets.random(way, 5)
        assert [one.labels["draw"] for one in drawn] == list(range(5))
        for one in drawn:
            other = one.on("a")
            assert isinstance(other, ScaleWeight)
            assert one.labels["kind"] == RANDOM[kind]
            assert not set(own.targets) & set(other.targets)
            assert sorted(layer for layer, _ in own.targets) == sorted(layer for layer, _ in other.targets)
    edit = sets.setting(Way(DOMAIN, 2.0, 0.05)).on("a")
    row, expert = np.argwhere(score[0] == score[0].max())[0].tolist()
    assert edit == ScaleWeight((((0, 2, 5)[row], expert),), factor=2.0)
    assert sets.setting(Way(DOMAIN, 1.0, 0.05)).on("a") is None
    assert (sets.chosen(Way(DOMAIN, 2.0, 0.2, of="b"), "a") == strongest(score[1], 5)).all()


def test_strongest_leaves_out_unused_experts_and_half_of_a_layer():
    values = np.array([[4.0, 3.0, 2.0, 1.0], [0.5, 0.0, 0.0, 0.0]])
    assert np.argwhere(strongest(values, 3)).tolist() == [[0, 0], [0, 1], [1, 0]]
    assert strongest(values, 8).sum() == 3


def test_ablation_finds_the_expert_that_alone_drives_a_class_of_tokens():
    model = planted.model("law")
    with torch.no_grad():
        model.model.layers[planted.LAYER].mlp.experts.down_proj[planted.SERVING[0]] *= 100
    texts = [" ".join(planted.words("law")), "word0 word1 word2"]
    effect = ablation_effect(model, planted.tokenizer(), texts)
    assert np.argwhere(effect == effect.max()).tolist() == [[planted.LAYER, planted.SERVING[0]]]
    assert effect.max() > 10 * np.sort(effect, axis=None)[-2]
    common = ablation_effect(model, planted.tokenizer(), ["word0 word1 word2"])
    assert (common[planted.LAYER, list(planted.SERVING)] == 0).all()


def test_the_record_of_the_full_profile_is_made_once_and_preferred(tmp_path, monkeypatch, found):
    made = []

    def computed(*arguments):
        made.append(arguments[3].items)
        return found

    monkeypatch.setattr(training_runs, "RUNS", tmp_path)
    monkeypatch.setattr(reweighting, "reweight", computed)
    monkeypatch.setattr(reweighting, "load_domains", lambda names, languages: planted.corpora())
    model, tokenizer = planted.model(), planted.tokenizer()
    small, full = reweighting.SAMPLE.items, reweighting.FULL.items
    assert reweighting.study(model, tokenizer, "tiny").awaits
    assert made == [small]
    again = reweighting.study(model, tokenizer, "tiny", profile="full").data
    assert made == [small, full]
    kept = reweighting.study(model, tokenizer, "tiny").data
    assert made == [small, full]
    assert kept.attrs["record"] == again.attrs["record"]
    assert kept.attrs["command"].endswith("-p profile=full -p model=tiny")
    assert Reweighted(kept).evidence() == Reweighted(found).evidence()
    reweighting.study(model, tokenizer, "tiny", profile="small")
    assert made == [small, full, small]
    with pytest.raises(ValueError, match="no profile 'big'"):
        reweighting.study(model, tokenizer, "tiny", profile="big")


def test_tasks_without_items_are_left_out():
    corpora = planted.corpora(documents=8)
    test_only = replace(corpora[0], rows=[replace(row, split="test") for row in corpora[0].rows])
    made = tasks(planted.tokenizer(), [test_only, *corpora[1:]], "en", 3, 4)
    assert "code" not in made.dev
    assert made.left_out["code"].startswith("0 dev")
    assert not {item.id for item in made.dev["law"]} & {item.id for item in made.test["law"]}
    with pytest.raises(CorpusError, match="code: 0 dev"):
        tasks(planted.tokenizer(), [test_only], "xx", 3, 4)
    with pytest.raises(ValueError, match="ranking of drivers is called 'guess'"):
        reweight(planted.model(), planted.tokenizer(), corpora, replace(CONFIG, drivers="guess"))
