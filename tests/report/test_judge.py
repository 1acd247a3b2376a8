import pandas as pd
import pytest
from IPython.display import Markdown

from mechanism.report.judge import EMBEDDED, Judge
from mechanism.report.provenance import Provenance
from mechanism.report.record import Record, read_records

ORIGIN = Provenance({"model": "m"}, {})
FOUND = {"estimate": -0.6, "low": -0.8, "high": -0.3, "n": 18.0, "null": float("nan"), "p": 0.01}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path))
    return tmp_path


def test_only_the_verdicts_of_the_embedded_model_are_recorded():
    other = Judge("some/model", ORIGIN)
    shown = other("R2", FOUND)
    assert isinstance(shown, Record)
    assert (str(shown.verdict), read_records()) == ("replicated", {})
    Judge(EMBEDDED, ORIGIN)("R2", FOUND, unit="correlation")
    assert read_records()["R2"]["verdict"] == "replicated"
    assert read_records()["R2"]["null"] is None


def test_a_claim_without_evidence_is_undecided_with_its_reason():
    judge = Judge(EMBEDDED, ORIGIN)
    told = judge("R12", None, reason="no control.")
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
