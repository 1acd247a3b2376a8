import numpy as np
import pytest

from mechanism.measure.evidence import Cell, Evidence
from mechanism.report.claims import find_claim
from mechanism.report.judge import EMBEDDED, Judge
from mechanism.report.multiverse import agreement, by_choice, outcomes
from mechanism.report.provenance import Provenance
from mechanism.report.record import read_records
from mechanism.report.scoreboard import claim_rows
from mechanism.report.verdicts import RuleError

AGAINST, FOR = Evidence(-0.5, -1.0, 0.2, 30, 0.3), Evidence(1.5, 0.8, 2.2, 30, 0.3)
CELLS = [Cell({"task": "a", "items": str(i)}, AGAINST) for i in range(9)] + [Cell({"task": "b", "items": "0"}, FOR)]


def test_every_analysis_is_judged_by_the_claims_own_rule_and_its_own_smallest_effect():
    claim = find_claim("R6")
    assert [str(one) for one in outcomes(claim, CELLS)] == ["refuted"] * 9 + ["replicated"]
    stricter = Cell({"smallest": "2"}, FOR, smallest=2.0)
    assert [str(one) for one in outcomes(claim, [stricter])] == ["partly"]
    with pytest.raises(RuleError, match="needs null"):
        outcomes(claim, [Cell({}, FOR._replace(null=float("nan")))])


def test_a_verdict_is_robust_from_nine_in_ten_on():
    assert (
        agreement({"refuted": 9, "replicated": 1}, "refuted") == "robust: 90% of 10 other analyses agree (1 replicated)"
    )
    assert agreement({"refuted": 9, "replicated": 1}, "replicated").startswith("not robust: 10% of 10")
    assert agreement({"refuted": 9}, "inconclusive").startswith("not robust: 0% of 9")
    assert agreement({}, "refuted") == ""


def test_the_curve_rises_and_the_table_counts_each_choice():
    judge = Judge("some/model", Provenance({"model": "m"}, {}))
    judge("R6", AGAINST, analyses=CELLS)
    (axis,) = judge.curves().axes
    curve, smallest = axis.lines
    assert list(np.asarray(curve.get_ydata())) == [-0.5] * 9 + [1.5]
    assert set(np.asarray(smallest.get_ydata())) == {find_claim("R6").smallest}
    assert axis.get_title() == "R6"
    table = by_choice({"R6": CELLS}).set_index(["of", "choice"])
    assert table.loc[("", "all"), ["analyses", "refuted", "replicated"]].tolist() == [10, 9, 1]
    assert table.loc[("task", "b"), ["analyses", "refuted", "replicated"]].tolist() == [1, 0, 1]
    assert table.loc[("items", "0"), "analyses"] == 2


def test_a_record_keeps_how_many_agree_and_the_board_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path))
    shown = Judge(EMBEDDED, Provenance({"model": "m"}, {}))("R6", AGAINST, analyses=CELLS)
    told = "robust: 90% of 10 other analyses agree"
    assert told in repr(shown)
    assert read_records()["R6"]["analyses"] == {"refuted": 9, "replicated": 1}
    row = next(row for row in claim_rows() if row["id"] == "R6")
    assert row["analyses"] == f"{told} (1 replicated)"
