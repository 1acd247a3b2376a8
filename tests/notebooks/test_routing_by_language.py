"""The page on routing by language runs on models of other families, with their own tokenizers and a reader's text."""

import json
from pathlib import Path

import pytest
import xarray as xr

from mechanism.corpus.library import committed
from mechanism.corpus.store import CorpusError
from mechanism.corpus.tokenizer import train_tokenizer
from mechanism.report.files import NOTEBOOKS
from mechanism.study.r_multilingual import routing as routing_by_language
from tests.notebooks.cells import execute, save_model

NOTEBOOK = NOTEBOOKS / "10_routing_by_language.ipynb"
pytestmark = pytest.mark.usefixtures("apart")
FAMILIES = ("olmoe", "deepseek_v3")  # all experts alike; shared ones, and a first layer without. Others: test_rerun
CODES = ("en", "de", "ru", "zh")
VOCABULARY, SEGMENTS = 600, 12


@pytest.fixture(scope="module")
def own_text(tmp_path_factory) -> Path:
    """A reader's folder of parallel text: one file per language, French too short."""
    corpus = committed("tech")
    rows = sorted(corpus.parallel("test", CODES), key=lambda i: len(corpus.columns["en"][i]))[200 : 200 + SEGMENTS]
    folder = tmp_path_factory.mktemp("own")
    for code in CODES:
        lines = [text.replace("\n", " ") for text in corpus.texts(code, rows)]
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "fr.txt").write_text("une phrase\n" * 3 + "\n" * (SEGMENTS - 3), "utf-8")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory, own_text: Path) -> dict[str, Path]:
    """A checkpoint of each family on disk, with a tokenizer trained on the reader's text."""
    texts = [line for path in sorted(own_text.glob("*.txt")) for line in path.read_text("utf-8").splitlines()]
    tokenizer = train_tokenizer(texts, VOCABULARY)
    return {family: save_model(family, tmp_path_factory.mktemp(family), tokenizer) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_runs_on_a_model_of_another_family_and_own_text(family, models, own_text, tmp_path):
    scope = execute(NOTEBOOK, model=str(models[family]), data=[str(own_text)])
    found = scope["found"]
    assert set(found["lang"].values) == set(CODES)
    assert found.attrs["pivot"] == "en"
    assert json.loads(found.attrs["left_out"]) == {own_text.name: {"fr": "3 segments, a profile needs 10"}}
    assert not found["between"].isnull().any()
    verdicts = scope["verdicts"]["verdict"]
    assert (verdicts[["R4", "R9", "R10", "R12"]] == "undecided").all()
    assert verdicts["R1"] != "undecided"
    assert not list((tmp_path / "results").glob("*.json")), "verdicts on another model are not recorded"


def test_the_full_profile_is_computed_once(models, own_text, tmp_path, monkeypatch):
    asked = {"model": str(models["olmoe"]), "data": [str(own_text)]}
    first = execute(NOTEBOOK, **asked, profile="full")
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "result.json", "stats.nc"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 300_000
    assert first["found"].attrs["record"] == folder.name
    with monkeypatch.context() as patch:
        patch.setattr(routing_by_language, "analyse", None)
        xr.testing.assert_identical(first["found"], execute(NOTEBOOK, **asked, profile="full")["found"])
    small = execute(NOTEBOOK, **asked, profile="small", max_segments=10)
    assert "record" not in small["found"].attrs
    assert "--only 10" in small["found"].attrs["awaits"]
    auto = execute(NOTEBOOK, **asked, max_segments=10)
    assert auto["found"].attrs["record"] == folder.name, "claims are judged on all segments once they are recorded"


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"profile": "large"}, "there is no profile 'large': use auto, small, full"),
        ({"layers": [0, 9]}, r"layer 9 has no router; routers are in layers 0 1 2 3"),
        ({"languages": ["de", "sw"]}, "no text in sw"),
        ({"max_segments": 5}, "a profile needs 10"),
        ({"languages": ["fr"]}, "fr: 3 segments, a profile needs 10"),
    ],
)
def test_bad_parameters_are_one_sentence(parameters, match, models, own_text):
    with pytest.raises((ValueError, CorpusError), match=match):
        execute(NOTEBOOK, **{"model": str(models["olmoe"]), "data": [str(own_text)], **parameters})
