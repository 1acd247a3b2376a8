"""The pages on domain experts and on re-weighting run on models of other families, with a reader's own domains."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from mechanism.corpus.store import CorpusError, encode_index, encode_lines
from mechanism.report.files import NOTEBOOKS
from mechanism.study import constant_compute, embedded
from mechanism.trace.families import tiny_model
from tests.notebooks.cells import execute

from ..study import planted

DOMAINS, REWEIGHTING = (NOTEBOOKS / f"{name}.ipynb" for name in ("20_domain_experts", "22_reweighting"))


@pytest.fixture(scope="module")
def own_text(tmp_path_factory) -> list[str]:
    """A folder per domain, two languages each, with dev and test documents."""
    folders = []
    for corpus in planted.corpora(documents=20)[:2]:
        folder = tmp_path_factory.mktemp("own") / corpus.name
        folder.mkdir()
        (folder / "index.tsv").write_bytes(encode_index(corpus.rows))
        for code, texts in corpus.columns.items():
            (folder / f"{code}.txt").write_bytes(encode_lines(texts))
        folders.append(str(folder))
    return folders


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """Nothing of the pages reaches the committed records, and layers are timed shortly."""
    timed = constant_compute.compute_growth
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(embedded, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(constant_compute, "compute_growth", lambda config: timed(replace(config, tokens=64, repeats=2)))
    yield
    plt.close("all")


def saved(family: str, folder: Path) -> str:
    tokenizer = planted.tokenizer()
    tiny_model(family, vocab_size=len(tokenizer), max_position_embeddings=256).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_domain_experts_of_another_family_and_own_text(own_text, tmp_path):
    scope = execute(DOMAINS, model=saved("deepseek_v3", tmp_path / "model"), data=own_text)
    assert scope["held"].index.tolist() == ["code", "law"]
    assert scope["crossed"].sizes["lang"] == 2
    assert set(scope["judge"].judged) == {"D1", "D8"}
    assert not list((tmp_path / "results").glob("*.json")), "verdicts on another model are not recorded"


def test_reweighting_of_another_family_and_own_text(own_text, tmp_path):
    scope = execute(REWEIGHTING, model=saved("mixtral", tmp_path / "model"), data=own_text, max_segments=2)
    assert scope["gains"]["n"].tolist() == [6, 6]
    assert set(scope["claims"]["claim"]) == {f"D{i}" for i in range(1, 9)}
    assert "D5" in scope["judge"].judged
    assert not list((tmp_path / "results").glob("*.json"))


def test_a_single_domain_is_one_sentence(own_text, tmp_path):
    with pytest.raises(CorpusError, match="entropy over one domain is not defined"):
        execute(DOMAINS, model=saved("mixtral", tmp_path / "model"), data=own_text[:1])
