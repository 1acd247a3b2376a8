"""Planted truths: languages whose routing, quality and retrieval are known, and what the chapter makes of them."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import softmax

from mechanism.corpus.store import CorpusError
from mechanism.measure.divergence import entropy, normalised_js
from mechanism.measure.evidence import Evidence
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.measure.units import Units
from mechanism.study.embedded.history import History
from mechanism.study.r_multilingual import sharing as language_sharing
from mechanism.study.r_multilingual import tables as language_tables
from mechanism.study.r_multilingual.claims import claims, detectable
from mechanism.study.r_multilingual.config import ChapterConfig
from mechanism.study.r_multilingual.effects import OneModel
from mechanism.study.r_multilingual.groups import between, grouping
from mechanism.study.r_multilingual.language_experts import ExpertOverlap
from mechanism.study.r_multilingual.observe import pick_layers, pool
from mechanism.study.r_multilingual.profiles import ALL, beyond
from mechanism.study.r_multilingual.quality import associations, byte_associations, explained, resource_associations
from mechanism.study.r_multilingual.sharing import (
    common_tokens,
    control_difference,
    last_probe,
    shared_states,
    twin_probes,
    twin_table,
    without_bilingual,
)
from mechanism.study.r_multilingual.tables import Chapter

LAYERS, EXPERTS, SEGMENTS = 6, 12, 40
MIDDLE = np.array([1, 1, 0, 0, 1, 1.0])
EVERY = np.ones(LAYERS)
# The weight of a language's own experts, by layer. Trained ones share experts with English in the middle; those of
# Latin script are nearer than the others. The held-out ones share with nothing.
SISTERS = {code: (0.4 + 0.05 * i) * MIDDLE + 0.02 * i for i, code in enumerate(("de", "fr", "es", "it", "id", "tr"))}
SISTERS |= {code: (0.8 + 0.05 * i) * MIDDLE + 0.1 + 0.02 * i for i, code in enumerate(("ru", "el", "ar", "hi"))}
STRANGERS = {"sw": 1.2 * EVERY, "yo": 1.3 * EVERY}
CONFIG = ChapterConfig(trained=("en", *SISTERS), unknown=tuple(STRANGERS), n_boot=200)
BOOTSTRAP = ClusterBootstrap(n_boot=200)


def planted(own: dict[str, np.ndarray], retrieved=(0.1, 0.2, 0.8, 0.8, 0.8, 0.2, 0.1), coupled=True, seed=0):
    """An observation. A sentence's routing is what it means, the same in every language, plus the language's own weight
    times the language's own preference. Loss grows with that weight if `coupled`."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(SEGMENTS, LAYERS, EXPERTS))
    parts = []
    for code, weight in {"en": 0 * EVERY, **own}.items():
        preference = 2 * rng.normal(size=(LAYERS, EXPERTS))
        noise = 0.05 * rng.normal(size=meaning.shape)
        importance = softmax(meaning + weight[:, None] * preference + noise, -1)
        english = importance if code == "en" else parts[0]["importance"].values[0]
        size = weight.mean() if coupled else rng.random()
        hits = rng.random((SEGMENTS, LAYERS + 1)) < np.array(retrieved)
        data = {
            "importance": (("segment", "layer", "expert"), importance),
            "frequency": (("segment", "layer", "expert"), np.minimum(2 * importance, 1)),
            "divergence": (("segment", "layer"), normalised_js(importance, english)),
            "shuffled": (("segment", "layer"), normalised_js(importance, np.roll(english, SEGMENTS // 2, axis=0))),
            "entropy": (("segment", "layer"), entropy(importance)),
            "consistency": (("segment", "layer"), 0.3 + 0.1 * size + 0.01 * rng.random((SEGMENTS, LAYERS))),
            "nll": ("segment", 100 * np.exp(size) + rng.normal(size=SEGMENTS)),
            "bytes": ("segment", np.full(SEGMENTS, 50.0)),
            "tokens": ("segment", np.full(SEGMENTS, 20.0) + rng.integers(0, 3)),
            "hits": (("segment", "state"), hits.astype(float)),
            "hits_centred": (("segment", "state"), hits.astype(float)),
            "distance": (("segment", "state"), rng.random((SEGMENTS, LAYERS + 1))),
            "overlap": ((), rng.random()),
        }
        parts.append(xr.Dataset(data, {"layer": np.arange(LAYERS) + 1}).expand_dims(lang=[code]))
    found = xr.concat(parts, "lang", join="exact").assign_coords(cluster=("segment", np.arange(SEGMENTS) // 2))
    return found.assign_attrs(corpus="planted", pivot="en", left_out={"km": "3 segments, a profile needs 10"})


@pytest.fixture(scope="module")
def world() -> xr.Dataset:
    return planted({**SISTERS, **STRANGERS})


@pytest.fixture
def chapter(world: xr.Dataset, monkeypatch) -> Chapter:
    sizes = {code: 10 ** (8 - i / 4) for i, code in enumerate(CONFIG.trained)}
    monkeypatch.setattr(language_tables, "training_bytes", lambda codes: {code: int(sizes[code]) for code in codes})
    tasks = {"sums": np.full((12, LAYERS, EXPERTS), 0.1)}
    return Chapter([world], tasks, CONFIG)


def judged(chapter: Chapter) -> dict[str, Evidence | str]:
    return claims(chapter.dataset().assign_attrs(run="", seed=0))


def test_sharing_in_the_middle_is_told_from_none(chapter: Chapter):
    own = OneModel(chapter.dataset())
    assert own.taught == sorted(SISTERS)
    assert (own.dips("divergence") > 0.5).all()
    assert (own.dips("shuffled") < 0.5 * own.dips("divergence")).all(), "shuffled pairs share no meaning"
    apart = OneModel(Chapter([planted(STRANGERS)], {}, ChapterConfig(n_boot=50)).dataset())
    assert (apart.dips("divergence") < 0.1).all()


def test_strangers_are_further_at_every_layer_only_if_they_are(chapter: Chapter):
    assert chapter.strangers() == (["sw", "yo"], ["de", "fr", "es", "it", "id", "tr"])
    assert (chapter.tables["held_out"]["low"] > 0).all()
    near = planted({"de": 1.2 * EVERY, "fr": 1.2 * EVERY, "sw": MIDDLE})
    swapped = beyond(near, ["sw"], ["de", "fr"], BOOTSTRAP)
    assert (swapped.loc[[3, 4], "high"] < 0).all()
    both = near["divergence"].mean("segment").sel(lang=["sw", "de", "fr"]).values
    shares = both[0] / both[1:].mean(0) - 1
    assert swapped.drop(ALL)["value"].tolist() == pytest.approx(shares, rel=1e-5)
    assert shares.min() < swapped.loc[ALL, "value"] < shares.max()


def test_evidence_on_every_claim(chapter: Chapter):
    found = judged(chapter)
    assert {claim for claim, own in found.items() if isinstance(own, str)} == {"R5", "R10", "R12"}
    assert "chance shares no expert" in str(found["R5"])
    known = {claim: own.checked() for claim, own in found.items() if isinstance(own, Evidence)}
    over = {claim: own.units.of for claim, own in known.items() if isinstance(own.units, Units)}
    assert {claim for claim, of in over.items() if of == "languages"} == set(known) - {"R9"}
    assert over["R9"].startswith("documents of "), "each estimate is the mean of its units, which is checked"
    assert known["R1"].low > max(0.5, known["R1"].null)
    assert known["R1"].n == len(SISTERS)
    assert known["R2"].high < -0.5
    assert known["R4"].n == 11
    assert min(known["R9"].low, known["R9"].null) > 0
    assert 0 <= known["R11"].low <= known["R11"].estimate <= 1
    assert OneModel(chapter.dataset()).gain().low > 0.3


def test_quality_that_has_nothing_to_do_with_routing_is_not_predicted():
    found = judged(Chapter([planted({**SISTERS, **STRANGERS}, coupled=False)], {}, ChapterConfig(n_boot=100)))["R2"]
    assert isinstance(found, Evidence)
    assert found.low < 0 < found.high


def test_retrieval_that_is_flat_or_high_at_the_end_is_not_shared_in_the_middle():
    flat = shared_states(planted(SISTERS, retrieved=(0.4,) * 7), SISTERS, BOOTSTRAP)
    late = shared_states(planted(SISTERS, retrieved=(0.1, 0.2, 0.8, 0.8, 0.8, 0.8, 0.8)), SISTERS, BOOTSTRAP)
    assert abs(flat["gain"].mean()) < 0.1
    assert abs(late["gain"].mean()) < 0.1
    assert (flat["n"] == SEGMENTS).all()


def test_experts_of_tasks_and_languages(world: xr.Dataset):
    measure = ExpertOverlap(taus=(0.1, 0.3), n_perm=100, n_boot=50)
    means = world["frequency"].mean("segment")
    gap = (means.drop_sel(lang="en") - means.sel(lang="en")).max("lang").values
    base = world["frequency"].sel(lang="en").values
    same, apart = base.copy(), base.copy()
    same.reshape(len(same), -1)[:, gap.argmax()] = 1
    apart.reshape(len(apart), -1)[:, gap.argmin()] = 1
    both = measure(world, {"task": same})
    assert both.loc[0.3, ["task", "shared"]].tolist() == [1, 1]
    assert both.loc[0.3, "low"] <= 1 <= both.loc[0.3, "high"]
    none = measure(world, {"task": apart})
    assert none.loc[0.3, ["task", "shared"]].tolist() == [1, 0]


def test_what_routing_adds_to_hidden_states():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(24, 3)), columns=["distance", "divergence", "log_train"])
    table["other_script"] = np.arange(24) % 2
    copied = table.assign(quality=table["distance"] + 0.1 * rng.normal(size=24))
    own = table.assign(quality=table["distance"] - table["divergence"] + 0.1 * rng.normal(size=24))
    assert explained(copied)["p"] > 0.05
    assert explained(own)["p"] < 0.01
    assert explained(own)["low"] <= explained(own)["value"] <= explained(own)["high"]
    assert explained(own.assign(log_train=np.nan))["n"] == 24, "a predictor that nobody has is left out"


def test_a_confounder_is_seen_through():
    rng = np.random.default_rng(1)
    script = np.repeat([0.0, 1.0], 12)
    noise = rng.normal(size=(3, 24)) * 0.2
    table = pd.DataFrame({"divergence": script + noise[0], "quality": -script + noise[1], "other_script": script})
    found = associations(table, given={"nothing": (), "script": ("other_script",)})
    assert found.loc[("nothing", "pearson"), "high"] < -0.5
    assert abs(found.loc[("script", "pearson"), "value"]) < 0.5
    assert found.loc[("script", "pearson"), "p"] > 0.05


def test_bits_per_byte_relative_to_english_correlate_as_bits_per_byte_do():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"divergence": rng.random(20), "bits_per_byte": 1 + rng.random(20)}).astype(np.float64)
    table["bits_per_byte"] += table["divergence"]
    found = byte_associations(table)
    relative = byte_associations(table.assign(bits_per_byte=table["bits_per_byte"] / 1.7))
    assert np.allclose(found, relative)
    assert (found["high"] < 0).all()
    ranks = found.xs("spearman", level="method")["value"]
    assert ranks.nunique() == 1, "a logarithm changes no rank"


def test_resources_that_go_with_script_alone_do_not_pass_for_resources():
    """Consistency follows script, and so does training text; within a script there is nothing."""
    rng = np.random.default_rng(2)
    codes = ["en", *(f"l{i}" for i in range(23))]
    other = np.arange(24) % 2.0
    noise = 0.1 * rng.normal(size=(3, 24))
    consistency = pd.DataFrame({"value": other + noise[0], "log_train": 12 - 2 * other + noise[1]}, codes)
    consistency.loc[codes[-4:], "log_train"] = np.nan
    language = pd.DataFrame({"other_script": other, "length_ratio": 1 + other + noise[2]}, codes).drop("en")
    found = resource_associations(consistency, language, "en")
    assert found.loc[("trained languages", "nothing"), "high"] < -0.4
    given = found.loc[("trained languages", "script")]
    assert given["low"] < 0 < given["high"]
    assert found.loc[("trained languages", "nothing"), "n"] == given["n"] == 20, "the pivot counts"
    sizes = {label: rows["n"].iloc[0] for label, rows in found.groupby(level="sample")}
    assert sizes["trained languages, script of en"] == 10
    assert sizes["all, never trained as 0, script of en"] == 12
    assert resource_associations(consistency.assign(log_train=np.nan), language, "en").empty


def test_too_few_languages_have_no_correlation_but_are_counted():
    table = pd.DataFrame({"divergence": [0.1, 0.2, 0.3], "quality": [1.0, 2.0, 3.0]})
    found = associations(table, given={"nothing": ()})
    assert found["value"].isna().all()
    assert (found["n"] == 3).all()


def test_scripts_that_explain_divergence_are_found_and_families_are_not():
    """Latin languages share one preference, Cyrillic and Arabic ones another; families cut across."""
    found = planted(dict.fromkeys(("de", "fr", "tr", "id", "ru", "ar", "fa", "xx"), 0 * EVERY))
    codes = [str(code) for code in found["lang"].values]
    away = 2 * np.random.default_rng(5).normal(size=(LAYERS, EXPERTS))
    logits = np.log(found["importance"].values)
    logits[[codes.index(code) for code in ("ru", "ar", "fa")]] += away
    found["importance"] = found["importance"].dims, softmax(logits, -1)
    table = grouping(between(found), n_perm=300)
    assert (table.xs("script", level="label")["q"] < 0.05).all()
    assert (table.xs("family within script", level="label")["p"] > 0.05).all()
    assert (table["n"] == 8).all(), "xx is no language of the table"


def test_everything_shown_fits_into_one_record(chapter: Chapter):
    found = chapter.dataset()
    assert json.loads(found.attrs["left_out"]) == {"planted": {"km": "3 segments, a profile needs 10"}}
    assert found.attrs["wide"] == "planted"
    own = found["profile"].sel(quantity="divergence", corpus="planted")
    assert own.sel(lang="en").isnull().all(), "the pivot is not compared with itself"
    assert own.sel(lang="de", layer=3, bound="value") < own.sel(lang="de", layer=1, bound="value")
    assert found["between"].sel(layer=3, lang="de", other="sw") > found["between"].sel(layer=3, lang="de", other="fr")
    assert list(found["overlap"]["tau"].values)[5] == 0.3


def test_what_the_data_would_have_shown_is_told_of_every_claim_that_is_judged(chapter: Chapter):
    shown = detectable(chapter.dataset(), judged(chapter))
    assert set(shown.index) == {"R1", "R2", "R3", "R4", "R9", "R11"}
    assert (shown["detectable"] > 0).all()


def test_what_is_not_known_of_a_model_is_a_reason_not_a_number(world: xr.Dataset):
    found = judged(Chapter([world.sel(lang=["en", "de", "fr", "sw"])], {}, ChapterConfig(n_boot=50)))
    assert {claim for claim, own in found.items() if isinstance(own, Evidence)} == {"R1", "R3"}
    assert "not known" in str(found["R4"])
    assert "no task" in str(found["R5"])
    assert "surely does not know" in str(found["R9"])
    assert "3 languages are too few" in str(found["R2"])


def test_a_model_that_knows_none_of_the_languages(world: xr.Dataset, monkeypatch):
    monkeypatch.setattr(language_tables, "training_bytes", lambda codes: {"en": 1000})
    config = ChapterConfig(trained=("en",), unknown=("sw", "yo"), n_boot=50)
    chapter = Chapter([world.sel(lang=["en", "sw", "yo"])], {}, config)
    found = judged(chapter)
    assert not [claim for claim in ("R1", "R3", "R10") if isinstance(found[claim], Evidence)]
    assert "shared" not in chapter.dataset()


def test_pooling_keeps_documents_apart_and_pivots_alike(world: xr.Dataset):
    less = world.drop_sel(lang="yo").assign_attrs(world.attrs, corpus="other")
    both = pool([world, less])
    assert both.sizes["segment"] == 2 * SEGMENTS
    assert len(np.unique(both["cluster"])) == SEGMENTS
    assert both["nll"].sel(lang="yo").notnull().sum() == SEGMENTS
    with pytest.raises(CorpusError, match=r"different pivots cannot be pooled .*planted: en, other: de"):
        pool([world, less.assign_attrs(pivot="de")])


def test_a_layer_without_a_router_is_refused(world: xr.Dataset):
    assert pick_layers(world, None) == [1, 4, 6]
    assert pick_layers(world, [2]) == [2]
    with pytest.raises(ValueError, match="layer 0 has no router; routers are in layers 1 2 3 4 5 6"):
        pick_layers(world, [2, 0])


def history(name: str, lift: float, tokens=(0, 8, 16)) -> History:
    """A run's record whose divergence is the same noise for every run, and `lift` in the last probe."""
    rng = np.random.default_rng(3)
    codes = ["en", "de", "fr", "es", "ko", "sw"]
    divergence = 0.3 + 0.02 * rng.normal(size=(len(tokens), 1, len(codes), 200, 8))
    divergence[-1] += lift
    divergence[:, :, 4, 5:] = np.nan
    hits = (rng.random((len(tokens), 1, len(codes), 200, 9)) < 0.5).astype(float)
    data = {
        "divergence": (("tokens_seen", "corpus", "lang", "segment", "layer"), divergence),
        "hits_centred": (("tokens_seen", "corpus", "lang", "segment", "state"), hits),
    }
    stats = xr.Dataset(data, {"tokens_seen": list(tokens), "corpus": ["tech"], "lang": codes})
    return History(name, "hash", {}, {"mixture": {"languages": codes[:-1]}}, pd.DataFrame(), stats)


def test_a_control_that_stays_apart_is_told_from_one_that_does_not():
    seeds = {f"seed{i}": history(f"seed{i}", 0.01 * i) for i in range(3)}
    apart = without_bilingual({**seeds, "control": history("control", 0.1)})
    assert list(apart.index) == ["de", "fr", "es"], "ko has five segments, sw was not trained on"
    found = control_difference(apart)
    mean = apart.drop(columns="control").mean().mean()
    assert found.estimate == pytest.approx(0.09 / mean, abs=1e-5)
    half = 4.303 * 0.01 * np.sqrt(4 / 3)  # Student's quantile for three seeds, one more run
    assert (found.low * mean, found.high * mean) == pytest.approx((0.09 - half, 0.09 + half), abs=1e-4)
    assert found.n == 3
    alike = control_difference(without_bilingual({**seeds, "control": history("control", 0.01)}))
    assert alike.low <= 0 <= alike.high
    with pytest.raises(ValueError, match="needs the control"):
        control_difference(apart.drop(columns="control"))
    with pytest.raises(ValueError, match="two runs with bilingual documents"):
        control_difference(apart[["seed0", "control"]])


def test_a_control_that_differs_by_its_seed_alone_is_seldom_called_apart():
    """Runs differ by seed, the control too; languages differ within runs. Nominal: 2.5 % above zero."""
    rng, names = np.random.default_rng(0), ["seed0", "seed1", "seed2", "control"]
    drawn = [0.3 + 0.02 * rng.normal(size=4) + 0.01 * rng.normal(size=(18, 4)) for _ in range(1000)]
    above = [control_difference(pd.DataFrame(own, columns=names)).low > 0 for own in drawn]
    assert np.mean(above) == pytest.approx(0.025, abs=0.015)


def test_runs_are_compared_at_equal_tokens():
    runs = {"seed0": history("seed0", 0.5, tokens=(0, 8, 32)), "control": history("control", 0.1)}
    assert common_tokens(runs) == 8
    table = without_bilingual(runs)
    assert table["seed0"].tolist() == pytest.approx(table["control"].tolist())


def test_the_dense_twin_is_read_beside_a_run_of_equal_tokens_on_equal_probes(monkeypatch):
    runs = {"seed0": history("seed0", 0.0, tokens=(0, 8, 32)), "dense": history("dense", 0.0, tokens=(0, 8))}
    runs["seed0"].stats["hits_centred"][2, ..., 4] = 1
    runs["dense"].stats = runs["dense"].stats.drop_vars("divergence")
    runs["dense"].stats["hits_centred"][1, ..., 4] = 1
    monkeypatch.setattr(language_sharing, "load_history", runs.get)
    monkeypatch.setattr(language_sharing.training_runs, "records", lambda: dict.fromkeys(runs))
    assert twin_probes() == {}, "a record of an unfinished run is no reference"
    for run in runs.values():
        run.result["finished"] = True
    probes = twin_probes()
    table = twin_table(probes, BOOTSTRAP)
    assert table.loc["dense", "gain"] > 0.3
    assert abs(table.loc["seed0", "gain"]) < 0.1, "seed0 shares at 32 tokens, not at 8"
    assert (table["languages"] == 4).all()
    assert probes["seed0"]["segment"].equals(probes["dense"]["segment"])
    assert table["million tokens"].tolist() == [8e-6, 8e-6]
    del runs["dense"]
    assert twin_probes() == {}


def test_a_probe_is_an_observation_with_documents():
    found = last_probe(history("main", 0.0), 16)
    assert set(found["lang"].values) == {"en", "de", "fr", "es", "ko"}
    assert 1 < len(np.unique(found["cluster"])) < found.sizes["segment"]
    assert len(shared_states(found, ["de", "fr"], BOOTSTRAP)) == 2
