import yaml

from mechanism.measure.evidence import Evidence, NotTestable
from mechanism.report.files import CLAIMS
from mechanism.report.verdicts import Rule
from mechanism.study.r_multilingual import planted_steering
from mechanism.study.r_multilingual.planted import CASES, planted
from mechanism.study.r_multilingual.planted_steering import DAMAGED, repaired


def holds(claim: str, evidence: Evidence | str) -> bool:
    entries = yaml.safe_load(CLAIMS.read_text("utf-8"))["claims"]
    entry = next(entry for entry in entries if entry["id"] == claim)
    verdict = Rule.parse(entry["rule"]).verdict
    return isinstance(evidence, Evidence) and verdict(evidence, entry["smallest"]["value"]) == "replicated"


def test_what_is_planted_is_found_and_nothing_else():
    for case, own in planted().items():
        assert set(own) == {"R1", "R2", "R10"}
        for claim, evidence in own.items():
            assert holds(claim, evidence) == CASES[case][2], (case, claim, evidence)


def test_steering_repairs_a_damaged_router_and_makes_nothing_of_a_sound_one():
    for offset, must in planted_steering.CASES.items():
        found = repaired(offset)
        assert holds("R6", found.claims()["R6"]) == must, offset
        gains = found.by_language()["gain"]
        assert (gains.drop(DAMAGED) == 0).all()
        assert (gains[DAMAGED] > 0.2) == must
    assert isinstance(repaired(0.0).claims()["R8"], NotTestable)
