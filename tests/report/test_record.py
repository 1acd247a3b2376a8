"""Records and numbers: what is written, and what is refused."""

import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechanism.measure.evidence import Evidence, EvidenceError
from mechanism.report import number, record
from mechanism.report.claims import ClaimError
from mechanism.report.record import Record, RecordError, evidence_of, read_records, running_notebook, scalar
from mechanism.report.scoreboard import claim_rows, claims_markdown
from mechanism.report.verdicts import RuleError, Verdict


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MECHANISM_NOTEBOOK", "10_x")
    return tmp_path / "results"


def good(**change) -> Record:
    found = Evidence(2.0, 0.5, 3.5, 250, 0.8)
    found = found._replace(**{name: change.pop(name) for name in found._fields if name in change})
    given: dict[str, Any] = {"claim_id": "R6", "evidence": found}
    return record(**(given | change))


def test_record_is_written_with_its_verdict_and_provenance(results: Path):
    found = good()
    payload = json.loads((results / "R6.json").read_text())
    assert found.verdict == payload["verdict"] == "replicated"
    assert payload["rule"].startswith("replicated if interval.low > 0 and estimate > null")
    assert (payload["estimate"], payload["interval"], payload["n"], payload["null"]) == (2.0, [0.5, 3.5], 250, 0.8)
    assert payload["notebook"] == "10_x"
    assert "mechanism" in payload["provenance"]
    assert "device" not in payload["provenance"]


def test_recording_again_gives_the_same_bytes(results: Path):
    good()
    before = (results / "R6.json").read_bytes()
    good()
    assert (results / "R6.json").read_bytes() == before
    assert [path.name for path in results.iterdir()] == ["R6.json"]


def test_numpy_and_torch_scalars_become_plain(results: Path):
    good(estimate=np.float64(2), low=np.float32(0.5), n=np.int64(250), null=torch.tensor(0.5))
    payload = json.loads((results / "R6.json").read_text())
    assert payload["n"] == 250
    assert payload["null"] == 0.5


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"claim_id": "R99"}, ClaimError),
        ({"estimate": None}, EvidenceError),
        ({"estimate": math.nan}, EvidenceError),
        ({"estimate": np.float32("inf")}, EvidenceError),
        ({"estimate": "2"}, EvidenceError),
        ({"estimate": True}, EvidenceError),
        ({"estimate": np.array([1.0, 2.0])}, EvidenceError),
        ({"low": None}, EvidenceError),
        ({"low": math.nan}, EvidenceError),
        ({"low": 4.0}, EvidenceError),
        ({"n": None}, EvidenceError),
        ({"n": 0}, EvidenceError),
        ({"n": 2.5}, EvidenceError),
        ({"null": math.nan}, RuleError),
        ({"p": 2.0}, EvidenceError),
        ({"not_testable": "no model"}, RecordError),
    ],
)
def test_missing_or_impossible_data_is_an_error_and_leaves_nothing(results: Path, change: dict, error: type):
    with pytest.raises(error):
        good(**change)
    assert not results.exists()


def test_refused_record_keeps_the_former_one(results: Path):
    good()
    before = (results / "R6.json").read_bytes()
    with pytest.raises(EvidenceError):
        good(estimate=math.nan)
    assert (results / "R6.json").read_bytes() == before


def test_not_testable_needs_its_reason(results: Path):
    found = record("R3", None, not_testable="the model has a single layer")
    assert found.verdict == Verdict.NOT_TESTABLE
    assert read_records()["R3"]["note"] == "the model has a single layer"
    with pytest.raises(RecordError, match="say why it is not testable"):
        record("R3", None, not_testable=" ")


def test_record_shows_itself():
    html = good(note="a < b")._repr_html_()
    assert "replicated at small scale" in html
    assert "a &lt; b" in html
    assert "2 [0.5, 3.5] points" in html
    assert repr(good()).startswith("R6: replicated at small scale\n")


def test_records_reach_the_tables(results: Path):
    good()
    row = next(row for row in claim_rows() if row["id"] == "R6")
    assert (row["verdict"], row["estimate"], row["notebook"]) == ("replicated", 2.0, "10_x")
    badge = 'class="verdict verdict-replicated" href="notebooks/10_x.html#claim-R6">replicated at small scale</a>'
    assert badge in claims_markdown("R", "claims")


def test_the_note_of_a_verdict_stands_below_its_criterion(results: Path):
    good()
    assert "*Note.*" not in claims_markdown("R", "claims")
    good(note="two items are left out.")
    assert "  *Note.* two items are left out.\n" in claims_markdown("R", "claims")


def test_numbers_are_kept_by_notebook(results: Path):
    number("share", np.float64(0.12345), ".1%")
    number("count", torch.tensor(1234), ",d")
    number("name", "Swahili")
    kept = json.loads((results / "numbers" / "10_x.json").read_text())
    assert {name: entry["value"] for name, entry in kept.items()} == {
        "share": 0.12345,
        "count": 1234,
        "name": "Swahili",
    }


def test_formatted_texts_are_kept_beside_values(results: Path):
    number("count", 1234, ",d")
    assert json.loads((results / "numbers" / "10_x.json").read_text()) == {"count": {"value": 1234, "text": "1,234"}}


@pytest.mark.parametrize("value", [None, math.nan, np.inf, [1], np.zeros(2), torch.zeros(3)])
def test_number_without_data_is_refused(value: object):
    with pytest.raises(RecordError):
        number("x", value)


def test_number_with_a_format_that_does_not_fit_is_refused():
    with pytest.raises(RecordError, match=r"format ',d' does not fit 0\.5"):
        number("x", 0.5, ",d")


def test_scalar_keeps_plain_types():
    assert [scalar("x", value) for value in (1, 0.5, "a", True)] == [1, 0.5, "a", True]


def test_running_notebook_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MECHANISM_NOTEBOOK")
    monkeypatch.setenv("JPY_SESSION_NAME", "/somewhere/01_corpus.ipynb")
    assert running_notebook() == "01_corpus"
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert running_notebook() == "interactive"


def test_a_record_that_says_the_same_is_left_as_it_is(results: Path, monkeypatch: pytest.MonkeyPatch):
    good()
    path = results / "R6.json"
    first = path.read_bytes()
    monkeypatch.setattr(import_module("mechanism.report.provenance"), "code_hash", lambda: "f" * 64)
    good(estimate=2.0 + 1e-9)
    assert path.read_bytes() == first
    good(estimate=2.001)
    assert json.loads(path.read_text())["estimate"] == 2.001
    assert "ffffffffffff" in path.read_text()


def test_the_evidence_of_a_record_is_read_back(results: Path):
    found = good(p=0.25)
    assert evidence_of(json.loads((results / "R6.json").read_text())) == found.evidence
    assert evidence_of({"estimate": None}) is None
