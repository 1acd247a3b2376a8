"""The map of guarantees: what the survey finds, what is recorded, and what the page shows of it."""

import pytest
import torch
import transformers

from mechanism.report import guarantees
from mechanism.trace import checks, survey
from mechanism.trace.errors import ContractError
from mechanism.trace.families import families, sides, wholes
from mechanism.trace.probe import RELATIVE

FEW = ["qwen3_moe", "doge", "llama4_text"]


@pytest.fixture(scope="module")
def found():
    return survey.record(survey.survey(names=FEW, dtypes=("float32",)))


def test_the_survey_tells_what_is_observed_refused_and_not_applicable(found):
    rows = {(row["family"], row["implementation"]): row for row in found["rows"]}
    assert set(rows) == {
        *(("qwen3_moe", name) for name in survey.IMPLEMENTATIONS),
        ("doge", "own"),
        ("llama4_text", "own"),
    }
    for name in survey.IMPLEMENTATIONS:
        assert set(rows["qwen3_moe", name]["outcomes"].values()) == {"observed"}
    assert set(rows["doge", "own"]["outcomes"].values()) == {"refused"}
    assert "look like experts" in rows["doge", "own"]["reasons"]["force_forces"]
    assert rows["llama4_text", "own"]["outcomes"]["output_is_sum"] == "refused"
    assert rows["llama4_text", "own"]["outcomes"]["implementations_agree"] == "not applicable"


def test_a_contract_that_fails_is_silently_wrong(monkeypatch):
    def broken(probe):
        raise ContractError("two and two are five")

    monkeypatch.setattr(survey, "check", lambda model: checks.check(model, [broken]))
    (row, *_) = survey.survey(names=["qwen3_moe"], dtypes=("float32",))
    assert row["outcomes"] == {"broken": "silently wrong"}
    assert row["reasons"] == {"broken": "ContractError: two and two are five"}
    made = {"rows": [row], "contracts": ["broken"]}
    assert guarantees.MARKS["silently wrong"] in guarantees.map_html(made)
    assert guarantees.summary(made)[0]["silently wrong"] == 1


def test_the_page_shows_a_mark_for_each_implementation_and_format(found):
    shown = guarantees.map_html(found)
    assert "<td" in shown
    assert shown.count("<td") == len(FEW) * len(found["contracts"])
    assert "●●●<br>···" in shown
    assert "○··<br>···" in shown
    assert "float32, grouped_mm: observed" in shown
    assert "single contributions cannot be read (output is sum, block adds experts" in shown


def test_a_record_is_read_back(found, monkeypatch, tmp_path):
    monkeypatch.setattr(guarantees, "RECORD", tmp_path / "map.json")
    guarantees.write(found)
    assert guarantees.read() == found
    assert f"{len(FEW)} families" in guarantees.map_markdown()


@pytest.mark.skipif(not guarantees.RECORD.exists(), reason="nothing is recorded")
def test_nothing_recorded_is_silently_wrong_and_nothing_is_left_out():
    kept = guarantees.read()
    assert not [row["family"] for row in kept["rows"] if "silently wrong" in row["outcomes"].values()]
    assert kept["contracts"] == [contract.__name__ for contract in checks.FULL], f"run {guarantees.COMMAND}"
    if kept["transformers"] == transformers.__version__:
        assert {row["family"] for row in kept["rows"]} == {*families(), *wholes(), *sides()}
    for row in kept["rows"]:
        assert set(row["outcomes"]) == set(kept["contracts"])
        assert set(row["reasons"]) == {c for c, outcome in row["outcomes"].items() if outcome != "observed"}


def test_bfloat16_is_held_to_ten_units_of_roundoff():
    assert RELATIVE[torch.bfloat16] == pytest.approx(10 * torch.finfo(torch.bfloat16).eps / 2, rel=0.05)
