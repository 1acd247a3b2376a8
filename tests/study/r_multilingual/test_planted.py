import pytest
import yaml

from mechanism.measure.evidence import Evidence, NotTestable
from mechanism.report.files import CLAIMS
from mechanism.report.verdicts import Rule
from mechanism.study.r_multilingual import planted_steering
from mechanism.study.r_multilingual.planted import CASES, planted
from mechanism.study.r_multilingual.planted_steering import DAMAGED, EXPERT, LAYER, repaired


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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steering_repairs_a_damaged_router_and_makes_nothing_of_a_sound_one(seed: int):
    for offset, must in planted_steering.CASES.items() if seed == 0 else [(4.0, True)]:
        found = repaired(offset, seed)
        assert str(found.data["targets"].values[found.chosen]) == f"{LAYER}.{EXPERT}", "it alone is found"
        assert holds("R6", found.claims()["R6"]) == must, offset
        gains = found.by_language()["gain"]
        assert (gains.drop(DAMAGED) == 0).all()
        assert (gains[DAMAGED] > 0.2) == must


def test_without_a_gain_nothing_can_concentrate():
    assert isinstance(repaired(0.0).claims()["R8"], NotTestable)
