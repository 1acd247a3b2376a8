import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from mechanism.study.base import runs as training_runs
from mechanism.study.embedded import compression as baselines
from mechanism.study.embedded.acceptance import acceptance, best_layer, languages_accepted
from mechanism.study.embedded.siblings import (
    bits_table,
    choice_table,
    comparison,
    compression_remark,
    emergence_curve,
    evaluations,
    histories,
    lacking,
    middle,
    problem_remark,
    recorded_shares,
    stated_shares,
    to_make,
)

ROWS = [
    ("bits_per_byte", "tech", "en", None, 2.0),
    ("bits_per_byte", "code", "en", None, 1.0),
    ("bits_per_byte", "tech", "de", None, 3.0),
    ("bits_per_byte", "tech", "sw", None, 9.0),
    ("next_segment", "tech", "en", None, 0.5),
    ("next_segment", "tech", "de", None, 0.3),
    ("next_segment_pooled", "pooled", "en", None, 0.5),
    ("word_problem", "word_problems", "en", None, 0.7),
    ("word_problem", "word_problems", "de", None, 0.2),
    *(("retrieval_centred", "tech", "de", layer, share) for layer, share in enumerate((0.9, 0.1, 0.4, 0.2, 0.8))),
]


def table(shift=0.0):
    frame = pd.DataFrame(ROWS, columns=["task", "corpus", "lang", "layer", "estimate"])
    frame["estimate"] += shift
    return frame.assign(low=frame["estimate"] - 0.1, high=frame["estimate"] + 0.1, n=20, chance=0.25)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(baselines, "FOLDER", tmp_path / "baselines")
    return tmp_path


def recorded(place, name, **files):
    folder = place / "runs" / name
    folder.mkdir(parents=True)
    for file, payload in {"config": {"name": name}, "result": {}, **files}.items():
        (folder / f"{file}.json").write_text(json.dumps(payload))
    pd.DataFrame({"step": [1], "tokens": [8], "loss": [3.0]}).to_csv(folder / "metrics.csv")
    return folder


def test_without_records_the_sentence_names_every_command(place):
    assert evaluations(["dense"]) == {}
    assert baselines.recorded() is None
    sentence = to_make(["seed0", "dense"])
    for command in ("train --config seed0", "train --config dense", "bench compression"):
        assert f"`mechanism {command}`" in sentence
    assert sentence.count(".") == 1


def test_a_run_without_evaluation_is_still_to_be_made(place):
    folder = recorded(place, "dense")
    assert "--config dense" in to_make(["dense"], compression=False)
    table().to_csv(folder / "evaluation.csv", index=False)
    assert to_make(["dense"], compression=False) == ""
    pd.testing.assert_frame_equal(evaluations(["dense", "seed0"])["dense"], table())


def test_only_the_reports_own_runs_are_held_against_their_siblings(place):
    assert "--config control" in lacking("main", ["control"])
    folder = recorded(place, "control")
    table().to_csv(folder / "evaluation.csv", index=False)
    assert lacking("main", ["control"]) == ""
    for other in (None, "tiny"):
        assert "this model has none" in lacking(other, ["control"])


def test_bits_by_language_and_corpus_with_what_there_is(place):
    compression = pd.DataFrame({"lang": ["en", "xx"], "corpus": "tech", "bytes": 5, "ppm": [2.5, 1], "xz": [3.5, 1]})
    found = bits_table({"main": table(), "dense": table(0.5)}, compression)
    assert list(found.columns) == ["main", "dense", "xz", "ppm"]
    assert found.loc[("en", "tech")].tolist() == [2.0, 2.5, 3.5, 2.5]
    assert found.loc[("de", "tech")].isna().tolist() == [False, False, True, True]
    assert ("xx", "tech") not in found.index
    assert list(bits_table({"main": table()}).columns) == ["main"]


def test_choices_by_language():
    found = choice_table(table())
    found = found.set_index(["lang", "task"])
    assert found.loc[("en", "word problems"), ["estimate", "above chance"]].tolist() == [0.7, "yes"]
    assert found.loc[("de", "word problems"), "above chance"] == "no"
    assert set(found.index) == {("en", "next segment"), ("en", "word problems"), ("de", "word problems")}


def test_remarks_say_what_the_numbers_say(place):
    assert "70% (95 % interval 60% to 80%, chance 25%); this reaches the 60%" in problem_remark(table())
    assert "this stays below the 60%" in problem_remark(table(-0.2))
    assert problem_remark(table().query("lang == 'de'")) == ""
    assert compression_remark(bits_table({"main": table()})) == ""
    compression = pd.DataFrame({"lang": "en", "corpus": ["tech", "code"], "ppm": [1.5, 2.5], "xz": [9.0, 9.0]})
    bits = bits_table({"main": table()}, compression)
    assert compression_remark(bits).endswith("more bits than PPM in 1 of 2 corpora: tech.")
    assert compression_remark(bits.loc[["de"]]) == ""
    assert compression_remark(bits.assign(main=0.1)).endswith("in 0 of 2 corpora.")


def test_comparison_takes_trained_languages_and_middle_layers():
    found = comparison({"seed0": table(), "seed1": table(0.1)}).round(6)
    assert found.loc["seed0"].tolist() == [1.5, 3.0, 0.4, 0.7, 0.2, 0.4]
    assert (found.loc["seed1"] - found.loc["seed0"]).round(6).tolist() == [0.1] * 6


def test_middle_layers():
    assert middle(9) == [2, 3, 4, 5, 6]
    assert middle(5) == [1, 2, 3]
    assert middle(3) == [1]


def stats(hits, name="hits_centred"):
    data = np.broadcast_to(hits, (2, 1, 3, *np.shape(hits))).astype(np.float32).copy()
    data[0], data[1, 0, 2] = 0, np.nan
    dims = ("tokens_seen", "corpus", "lang", "segment", "state")
    coords = {"tokens_seen": [0, 8], "corpus": ["tech"], "lang": ["en", "de", "ko"]}
    return xr.Dataset({name: (dims, data)}, coords)


def test_the_best_layer_is_not_counted_where_it_was_chosen():
    noise = np.random.default_rng(0).random((4000, 9)) < 0.3
    assert best_layer(noise.astype(float))["estimate"] == pytest.approx(0.3, abs=0.03)
    one_sided = np.zeros((100, 9))
    one_sided[:50, 2] = one_sided[50:, 6] = 1
    assert best_layer(one_sided)["estimate"] == 0
    outside = np.zeros((100, 9))
    outside[:, [0, 1, 7, 8]] = 1
    assert best_layer(outside)["estimate"] == 0


def test_acceptance_reads_the_last_probe_and_counts_languages():
    hits = np.zeros((200, 9))
    hits[:120, 4] = hits[120:, 3] = 1
    both = xr.merge([stats(np.tile([[0, 0, 1, 0, 0, 0, 0, 0, 0]], (200, 1)), "hits"), stats(hits)])
    found = acceptance(both).set_index("kind")
    assert set(found["lang"]) == {"de"}
    assert found.loc["raw", ["layers", "estimate", "n", "chance"]].tolist() == ["2", 1.0, 200, 0.005]
    row = found.loc["centred"]
    assert row["estimate"] == pytest.approx(20 / 200), "layer 3 of the second half, 4 of the first, each on the other"
    assert row["low"] < row["estimate"] < row["high"]
    counts = languages_accepted(acceptance(both)).set_index("kind")
    assert counts.loc["raw", ["reached", "languages"]].tolist() == [1, 1]
    assert counts.loc["centred", "reached"] == 0
    assert acceptance(both, enough=201).empty
    assert languages_accepted(acceptance(both, enough=201)).empty


def test_emergence_is_the_mean_over_trained_languages_and_middle_layers(place):
    probes = stats(np.tile(np.arange(9) == 4, (10, 1)))
    dims = ("tokens_seen", "corpus", "lang", "segment", "layer")
    divergence = np.zeros((2, 1, 3, 10, 8))
    divergence[1, ..., 3] = 1.0  # layer 3 makes hidden state 4
    divergence[:, :, 2] = np.nan
    probes["divergence"] = (dims, divergence)
    curve = emergence_curve(probes, enough=10)
    assert curve["retrieval"].tolist() == pytest.approx([0, 0.2])
    assert curve["divergence"].tolist() == pytest.approx([0, 0.2])
    assert emergence_curve(probes).isna().all(axis=None), "no language has 150 segments"
    for name, payload in (("main", probes), ("dense", probes.drop_vars("divergence"))):
        payload.to_netcdf(recorded(place, name) / "stats.nc")
    assert list(histories(["main", "control", "dense", "main"])) == ["main"]


def test_shares_are_read_from_the_record(place):
    recorded(place, "main", shares={"problems": 0.1})
    recorded(place, "seed0")
    assert recorded_shares("main") == {"problems": 0.1}
    assert recorded_shares("seed0") is None


def test_stated_and_measured_shares_stand_side_by_side():
    measured = {"problems": 0.1, "bilingual": 0.5, "monolingual": 0.4}
    found = stated_shares({"bilingual": 0.45, "problems": 0.15, "alpha": 0.7}, measured)
    assert found.loc["problems"].tolist() == [0.15, 0.1]
    assert found.loc["monolingual"].tolist() == pytest.approx([0.4, 0.4])
    assert found.columns.tolist() == ["of documents, stated", "of tokens, measured"]
