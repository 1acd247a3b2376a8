"""The page on steering runs on models of other families from disk, with their own tokenizer and a reader's own text."""

from functools import partial
from pathlib import Path

import pytest

from mechanism.corpus.library import committed
from mechanism.corpus.store import CorpusError
from mechanism.models.load import load_model
from mechanism.report.files import NOTEBOOKS
from mechanism.study.r_multilingual import steering
from mechanism.study.r_multilingual.steering_plan import SteeringConfig
from mechanism.trace import InterventionError
from tests.notebooks.cells import execute, save_model

NOTEBOOK = NOTEBOOKS / "11_steering.ipynb"
CODES = ("en", "de", "zh", "ko")
TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
BRIEF = partial(SteeringConfig, (0.05,), strengths=(0.5,), draws=2, doses=(-0.5, 0.5), widths=(4,))


@pytest.fixture(scope="module")
def own_text(tmp_path_factory) -> Path:
    """A reader's folder of parallel text."""
    corpus = committed("udhr")
    rows = corpus.parallel("test", CODES)[:12]
    folder = tmp_path_factory.mktemp("own")
    for code in CODES:
        lines = [text.replace("\n", " ") for text in corpus.texts(code, rows)]
        (folder / f"{code}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


@pytest.fixture(autouse=True)
def brief(apart, monkeypatch):
    """Little is tried."""
    monkeypatch.setattr(steering, "SteeringConfig", BRIEF)


def save(family: str, folder: Path) -> str:
    """A checkpoint on disk with a tokenizer; one of them has a chat template."""
    tokenizer = load_model("tiny", "cpu")[1]
    tokenizer.chat_template = TEMPLATE if family == "olmoe" else None
    return str(save_model(family, folder, tokenizer))


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "deepseek_v3", "llama4_text"])
def test_it_runs_on_a_model_of_another_family_and_own_text(family, own_text, tmp_path, monkeypatch):
    tasks = ("word problems", "domain") if family == "mixtral" else ("word problems",)
    monkeypatch.setattr(steering, "TASKS", tasks)
    asked = {"data": [str(own_text)], "languages": ["en", "de", "ko"], "max_segments": 10}
    scope = execute(NOTEBOOK, model=save(family, tmp_path / "model"), **asked)
    made = scope["made"]
    assert set(made.results) | set(made.told) == set(tasks)
    assert not [reason for reason in made.told.values() if "\n" in reason]
    main = made.results["word problems"].data
    assert list(main["lang"].values) == ["en", "de"]
    assert "ko: there are no word problems in it" in main.attrs["left_out"]
    assert set(scope["claims"].index) == {"R6", "R7", "R8"}
    assert scope["claims"].loc["R8", "verdict"] in ("undecided", "not testable here"), "one language has no slope"
    assert not list((tmp_path / "results").glob("*.json")), "verdicts on another model are not recorded"


def test_the_full_profile_is_computed_once_and_judged_on(own_text, tmp_path, monkeypatch):
    asked = {"model": "tiny", "data": [str(own_text)], "languages": ["en", "de", "zh"], "max_segments": 10}
    monkeypatch.setattr(steering, "TASKS", ("word problems",))
    monkeypatch.setattr(steering, "FULL", {"dev": 12, "test": 14, "segments": 12})
    first = execute(NOTEBOOK, **asked, profile="full")
    assert len(list((tmp_path / "runs").glob("*/stats.nc"))) == 1
    assert first["main"].data.sizes["item"] == 14
    assert not first["made"].awaits
    again = execute(NOTEBOOK, **asked)
    assert again["main"].data.attrs["record"] == first["main"].data.attrs["record"]
    small = execute(NOTEBOOK, **asked, profile="small")
    assert small["main"].data.sizes["item"] == 10
    assert small["made"].awaits.endswith("profile=full")


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"profile": "large"}, "no profile 'large': use auto, small, full"),
        ({"layers": [0, 9]}, r"layers \[9\] have no router"),
        ({"max_segments": 5}, "ten are the fewest"),
    ],
)
def test_bad_parameters_are_one_sentence(parameters, match):
    with pytest.raises((ValueError, CorpusError, InterventionError), match=match):
        execute(NOTEBOOK, **{"model": "tiny", "languages": ["en", "de"], **parameters})
