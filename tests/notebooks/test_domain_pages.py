"""The pages on domain experts and on re-weighting run on models of other families, with a reader's own domains."""

from pathlib import Path

import pytest

from mechanism.corpus.store import CorpusError
from mechanism.report.files import NOTEBOOKS
from tests.notebooks.cells import execute, save_model

from ..study import planted

DOMAINS, REWEIGHTING = (NOTEBOOKS / f"{name}.ipynb" for name in ("20_domain_experts", "22_reweighting"))


@pytest.fixture(scope="module")
def own_text(tmp_path_factory) -> list[str]:
    """A folder per domain, two languages each, with dev and test documents."""
    return planted.folders(tmp_path_factory.mktemp("own"))


pytestmark = pytest.mark.usefixtures("apart")


def saved(family: str, folder: Path) -> str:
    return str(save_model(family, folder, planted.tokenizer()))


def test_domain_experts_of_another_family_and_own_text(own_text, tmp_path):
    scope = execute(DOMAINS, model=saved("deepseek_v3", tmp_path / "model"), data=own_text)
    assert scope["held"].index.tolist() == ["code", "law"]
    assert scope["crossed"].sizes["lang"] == 2
    assert set(scope["judge"].judged) == {"D1", "D8"}
    assert not list((tmp_path / "results").glob("*.json")), "verdicts on another model are not recorded"


def test_reweighting_of_another_family_and_own_text(own_text, tmp_path):
    scope = execute(REWEIGHTING, model=saved("mixtral", tmp_path / "model"), data=own_text, max_segments=2)
    assert scope["gains"]["n"].tolist() == [6, 6]
    assert "D5" in scope["judge"].judged
    assert not list((tmp_path / "results").glob("*.json"))


def test_a_single_domain_is_one_sentence(own_text, tmp_path):
    with pytest.raises(CorpusError, match="entropy over one domain is not defined"):
        execute(DOMAINS, model=saved("mixtral", tmp_path / "model"), data=own_text[:1])
