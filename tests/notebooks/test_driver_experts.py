"""The page on driver experts runs on a model of another family, with its own tokenizer and a reader's texts."""

from pathlib import Path

import pytest

from mechanism.corpus.library import committed
from mechanism.corpus.tokenizer import train_tokenizer
from mechanism.report.files import NOTEBOOKS
from tests.notebooks.cells import execute, save_model

NOTEBOOK = NOTEBOOKS / "21_driver_experts.ipynb"
pytestmark = pytest.mark.usefixtures("apart")
DOMAINS, SEGMENTS, VOCABULARY = ("tech", "politics"), 10, 600


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> list[Path]:
    """A reader's two domains, a folder each."""
    folders = []
    for name in DOMAINS:
        column = sorted(filter(None, committed(name).columns["en"]), key=len)
        folders.append(tmp_path_factory.mktemp("data") / name)
        folders[-1].mkdir()
        lines = [text.replace("\n", " ") for text in column[len(column) // 4 :][:SEGMENTS]]
        (folders[-1] / "en.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folders


@pytest.fixture(scope="module")
def model(tmp_path_factory, texts: list[Path]) -> Path:
    lines = [line for folder in texts for line in (folder / "en.txt").read_text("utf-8").splitlines()]
    tokenizer = train_tokenizer(lines, VOCABULARY)
    return save_model("olmoe", tmp_path_factory.mktemp("olmoe"), tokenizer)


@pytest.mark.filterwarnings("ignore::FutureWarning:sklearn")
def test_it_runs_on_a_model_of_another_family_and_own_text(model, texts, tmp_path):
    scope = execute(NOTEBOOK, model=str(model), data=[str(folder) for folder in texts], profile="full")
    claims = scope["claims"]
    assert set(claims.index) == {"D2", "D3", "D4", "D6", "D7"}
    assert (claims.drop(index="D6")["verdict"] != "undecided").all()
    assert "reroute" in scope["found"].attrs["fallback"], "olmoe does not renormalise"
    assert not list((tmp_path / "results").glob("*.json")), "verdicts on another model are not recorded"
    made = {folder.name for folder in (tmp_path / "runs").iterdir()}
    assert len(made) == 2, "the sweep, and its text"
    assert scope["found"].attrs["record"] in made


@pytest.mark.filterwarnings("ignore::FutureWarning:sklearn")
def test_with_a_single_domain_there_are_no_domain_experts(model, texts):
    scope = execute(NOTEBOOK, model=str(model), data=[str(texts[0])])
    assert scope["overlap"] is None
    assert scope["judge"].undecided["D3"] == "there is a single domain, and no domain expert"
    assert "CWAS" not in scope["predictions"].index
