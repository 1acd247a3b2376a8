import pandas as pd
import pytest
from IPython.display import Markdown

from mechanism.measure.evidence import Evidence, NotTestable
from mechanism.report.judge import EMBEDDED, RUN, STANDING, Judge
from mechanism.report.provenance import Provenance
from mechanism.report.record import Record, read_records, read_undecided

ORIGIN = Provenance({"model": "m"}, {})
FOUND = Evidence(-0.6, -0.8, -0.3, 18, -0.1, 0.01)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path))
    return tmp_path


def test_only_the_verdicts_of_the_embedded_model_are_recorded():
    other = Judge("some/model", ORIGIN)
    shown = other("R2", FOUND)
    assert isinstance(shown, Record)
    assert (str(shown.verdict), read_records()) == ("replicated", {})
    Judge(EMBEDDED, ORIGIN)("R2", FOUND)
    assert read_records()["R2"]["verdict"] == "replicated"
    assert read_records()["R2"]["null"] == -0.1
    assert "standing" not in read_records()["R2"]


def test_a_verdict_that_is_not_the_reports_says_so():
    shown, own = Judge("some/model", ORIGIN)("R2", FOUND), Judge(EMBEDDED, ORIGIN)("R2", FOUND)
    assert isinstance(shown, Record)
    assert isinstance(own, Record)
    assert STANDING == "not recorded in the report; this run's own verdict"
    assert f"</span> <em>{STANDING.replace(chr(39), '&#x27;')}</em></caption>" in shown._repr_html_()
    assert STANDING in repr(shown)
    assert STANDING not in repr(own)
    assert "<em>" not in own._repr_html_()


def test_a_run_of_its_own_records_any_model_and_says_so(monkeypatch):
    monkeypatch.setenv(RUN, "some/model")
    for model in ("some/model", EMBEDDED):
        judge = Judge(model, ORIGIN)
        judge("R2", FOUND)
        judge("R12", None, reason="no control")
        assert read_records()["R2"]["standing"] == STANDING
    assert list(read_records()) == ["R2"], "reasons are no records"
    assert read_undecided()["R12"]["reason"] == "no control"


def test_a_claim_without_evidence_is_undecided_with_its_reason():
    judge = Judge(EMBEDDED, ORIGIN)
    told = judge("R12", "no control.")
    assert isinstance(told, Markdown)
    assert "R12 stays undecided here: no control." in told.data
    judge("R2", FOUND)
    table = judge.table()
    assert table.index.tolist() == ["R2", "R12"]
    assert table.loc["R12", ["verdict", "note"]].tolist() == ["undecided", "no control."]
    assert pd.isna(table.loc["R12", "estimate"])
    assert list(read_records()) == ["R2"]
    with pytest.raises(ValueError, match="R12 has no evidence and no reason"):
        judge("R12", None)


def test_a_sample_of_the_full_results_decides_nothing_in_the_report(monkeypatch):
    told = Judge(EMBEDDED, ORIGIN, "make the full ones")("R2", FOUND)
    assert isinstance(told, Markdown)
    assert "R2 stays undecided here: the full results are not recorded; `make the full ones` makes them" in told.data
    assert read_records() == {}
    other = Judge("some/model", ORIGIN, "make the full ones")("R2", FOUND)
    assert isinstance(other, Record)
    monkeypatch.setenv(RUN, EMBEDDED)
    assert isinstance(Judge(EMBEDDED, ORIGIN, "make the full ones")("R2", FOUND), Record)


def test_what_no_run_could_test_is_a_record_of_its_own():
    judge = Judge(EMBEDDED, ORIGIN)
    shown = judge("R8", NotTestable("there is no gain"))
    assert isinstance(shown, Record)
    assert str(shown.verdict) == "not testable here"
    assert read_records()["R8"]["note"] == "there is no gain"
    assert judge.table().loc["R8", ["verdict", "note"]].tolist() == ["not testable here", "there is no gain"]
    assert isinstance(Judge(EMBEDDED, ORIGIN, "make them")("R8", NotTestable("no gain")), Markdown)
