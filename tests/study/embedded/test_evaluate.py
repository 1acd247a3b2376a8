import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechanism.corpus.library import committed
from mechanism.corpus.store import CorpusError
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.models.load import load_model
from mechanism.study.embedded import compression as baselines
from mechanism.study.embedded.evaluate import COLUMNS, EvaluateConfig, _Evaluation, evaluate
from mechanism.study.embedded.probes import probe, probe_rows


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", "cpu")


def score(loaded: tuple[Any, Any], config: EvaluateConfig) -> pd.DataFrame:
    model, tokenizer = loaded
    return evaluate(model, tokenizer, config)


def test_the_table_has_every_task_with_interval_and_chance(tiny):
    config = EvaluateConfig(languages=("en", "de"), data=("religion",), max_segments=10)
    table = score(tiny, config)
    assert list(table.columns) == COLUMNS
    tasks = {"bits_per_byte", "relative_loss", "next_segment", "word_problem", "word_problem_exact"}
    assert tasks | {"next_segment_pooled", "word_problem_words", "retrieval", "retrieval_centred"} == set(table["task"])
    assert (table["low"] <= table["estimate"] + 1e-9).all()
    assert (table["estimate"] <= table["high"] + 1e-9).all()
    assert (table["n"] > 0).all()
    retrieval = table[table["task"] == "retrieval"]
    assert len(retrieval) == tiny[0].config.num_hidden_layers + 1
    assert score(tiny, config).equals(table), "deterministic"


def test_choices_of_several_corpora_are_pooled_by_document(tiny):
    model, tokenizer = tiny

    def empty() -> _Evaluation:
        return _Evaluation(model, tokenizer, EvaluateConfig(), ClusterBootstrap(seed=0))

    own = empty()
    good, bad = np.ones(30, dtype=bool), np.zeros(10, dtype=bool)
    own.choices("a", "en", good, np.arange(30))
    own.choices("b", "en", bad, np.zeros(10, dtype=int))
    own.choices("a", "de", good, np.arange(30))
    english, german = own.pooled()
    assert (english["estimate"], english["n"], english["corpus"]) == (0.75, 31, "pooled")
    assert english["low"] < 0.75 < english["high"], "one document of ten misses comes or stays away as a whole"
    assert (german["low"], german["high"]) == (1.0, 1.0)
    same_number = empty()
    same_number.choices("a", "en", good, np.zeros(30, dtype=int))
    same_number.choices("b", "en", bad, np.zeros(10, dtype=int))
    (row,) = same_number.pooled()
    assert (row["low"], row["high"]) == (0.0, 1.0), "document 0 of one corpus is not document 0 of another"


def test_users_own_parallel_text(tiny, tmp_path):
    for code, line in (("en", "the house number"), ("sw", "nyumba namba")):
        (tmp_path / f"{code}.txt").write_text("".join(f"{line} {i}\n" for i in range(30)), "utf-8")
    table = score(tiny, EvaluateConfig(languages=("en", "sw"), data=(str(tmp_path),), max_segments=12))
    assert {"bits_per_byte", "retrieval"} <= set(table[table["lang"] == "sw"]["task"])


def test_bad_requests(tiny):
    with pytest.raises(KeyError, match="unknown language 'xx'"):
        EvaluateConfig(languages=("xx",))
    with pytest.raises(ValueError, match="max_segments is 0"):
        EvaluateConfig(max_segments=0)
    with pytest.raises(CorpusError, match="nothing to evaluate"):
        score(tiny, EvaluateConfig(languages=("yo",), data=("religion",)))


def test_probe_of_a_model(tiny, monkeypatch):
    monkeypatch.setattr("mechanism.study.embedded.probes.PROBE_SEGMENTS", {"religion": 6, "udhr": 5})
    stats = probe(*tiny)
    english = stats.sel(lang="en", corpus="religion")
    assert float(abs(english["divergence"]).max()) < 1e-6
    assert float(english["hits"].min()) == 1.0
    german = stats.sel(lang="de", corpus="religion")
    assert 0 < float(german["divergence"].mean()) <= 1
    np.testing.assert_allclose(german["probability"].sum("expert"), 1, atol=1e-5)


def test_probe_rows_are_held_out_and_shared():
    corpus = committed("religion")
    rows = probe_rows(corpus, 200)
    assert len(rows) == 200
    assert {corpus.rows[i].split for i in rows} == {"dev"}
    assert all(corpus.columns[code][i] for i in rows for code in corpus.languages)


def test_baselines_reward_text_they_have_read():
    letters = np.random.default_rng(0).integers(97, 123, 22_000, dtype=np.uint8)
    train, new = bytes(letters[:20_000]), bytes(letters[20_000:])
    for size in baselines.SIZES.values():
        alone = size(train)
        seen, unseen = (baselines.conditional_bits(size, train, alone, text) for text in (train[5000:7000], new))
        assert seen < 0.1 * unseen
        assert unseen >= 0.9 * len(new) * np.log2(26), "random letters cannot be compressed"


def test_baselines_are_computed_once_and_then_read(monkeypatch, tmp_path):
    monkeypatch.setattr(baselines, "FOLDER", tmp_path / "none")
    table = pd.DataFrame({"corpus": ["tech"], "lang": ["en"], "bytes": [9], "ppm": [2.0], "xz": [4.0]})
    monkeypatch.setattr(baselines, "compute", lambda report: table)
    assert baselines.recorded() is None
    assert baselines.made(print).equals(table)
    monkeypatch.setattr(baselines, "compute", None)
    assert baselines.made(print).equals(table)
    found = baselines.recorded()
    assert found is not None
    assert found.equals(table)


def test_without_pyppmd_only_the_baselines_are_missing():
    code = (
        "import sys; sys.modules['pyppmd'] = None\n"
        "import mechanism.study.r_multilingual.sharing\n"
        "from mechanism.study.embedded import compression, siblings\n"
        "compression.ppm_size(b'text')"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    told = "ValueError: PPM comes with pyppmd, which is not installed: pip install pyppmd"
    assert ran.stderr.splitlines()[-1] == told


def test_baselines_read_the_training_text_of_the_language_only():
    text = baselines.training_text("om").decode()
    assert 15_000 < len(text) <= 20_500
    corpus = committed("tech")
    held_out = [t for t in corpus.texts("om", corpus.split("test")) if len(t) > 60]
    assert not any(line in text for line in held_out)
