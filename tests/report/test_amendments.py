"""The ledger of amendments: in order, complete, and ending in the rules of today."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from mechanism.measure.evidence import Evidence
from mechanism.report.amendments import AmendmentError, load_amendments
from mechanism.report.claims import load_claims
from mechanism.report.files import RESULTS
from mechanism.report.record import evidence_of, read_records

CLAIMS = load_claims()
NAME = next(iter(CLAIMS))
ENTRY = {
    "claim": NAME,
    "date": date(2026, 11, 28),
    "changed": ["rule"],
    "old": "o",
    "new": "n",
    "reason": "r",
    "verdicts": {"old": "not replicated", "new": "refuted"},
    "after": CLAIMS[NAME].digest,
}


def ledger(folder: Path, *entries: dict) -> Path:
    path = folder / "amendments.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def test_every_claim_ends_in_the_rule_of_today_and_every_recorded_claim_has_a_history():
    own = load_amendments(CLAIMS)
    assert set(own) == set(read_records(RESULTS)) | set(own)


def test_a_recorded_verdict_is_that_of_todays_rule():
    for name, record in read_records(RESULTS).items():
        if (found := evidence_of(record)) is not None:
            assert str(CLAIMS[name].verdict(found)) == record["verdict"], name
        assert record["digest"] == CLAIMS[name].digest, name


def test_the_last_amendment_is_what_todays_record_says():
    for name, entries in load_amendments(CLAIMS).items():
        record = read_records(RESULTS).get(name)
        if record:
            assert entries[-1].verdicts["new"] == record["verdict"], name


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([ENTRY | {"claim": "Z9"}], "names claim 'Z9'"),
        ([ENTRY | {"reason": ""}], f"amendment of claim {NAME}: reason is unknown or missing"),
        ([ENTRY | {"who": "me"}], f"amendment of claim {NAME}: who is unknown or missing"),
        ([ENTRY | {"changed": ["colour"]}], "`changed` lists some of"),
        ([ENTRY | {"verdicts": {"old": "partly"}}], "`verdicts` has old and new"),
        ([ENTRY | {"date": "yesterday"}], "'yesterday' is no date"),
        ([ENTRY | {"old_rule": {"replicated": ["size > 0"]}}], "unknown name 'size'"),
        ([ENTRY, ENTRY | {"date": date(2026, 11, 27)}], "2026-11-27 stands after 2026-11-28"),
        (
            [ENTRY | {"after": "0" * 12}],
            f"claim {NAME} is not what its last amendment .* says: .*{CLAIMS[NAME].digest}",
        ),
    ],
)
def test_what_is_wrong_with_a_ledger_is_named(tmp_path: Path, entries: list[dict], told: str):
    with pytest.raises(AmendmentError, match=told):
        load_amendments(CLAIMS, ledger(tmp_path, *entries))


def test_the_old_verdict_is_asked_of_todays_evidence_where_it_can_be(tmp_path: Path):
    rule = {"old_rule": {"replicated": ["estimate > 1"], "partly": ["estimate > 0"]}, "same_estimate": True}
    path = ledger(tmp_path, ENTRY, ENTRY | rule)
    kept, asked = load_amendments(CLAIMS, path)[NAME]
    assert [one.old_verdict(Evidence.exact(0.5, 1)) for one in (kept, asked)] == ["not replicated", "partly"]
    assert asked.old_verdict(Evidence.exact(-1.0, 1)) == "not replicated"
