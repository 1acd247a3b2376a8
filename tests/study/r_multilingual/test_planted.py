import yaml

from mechanism.measure.evidence import Evidence
from mechanism.report.files import CLAIMS
from mechanism.report.verdicts import Rule
from mechanism.study.r_multilingual.planted import CASES, planted


def test_what_is_planted_is_found_and_nothing_else():
    claims = {entry["id"]: entry for entry in yaml.safe_load(CLAIMS.read_text("utf-8"))["claims"]}
    for case, own in planted().items():
        assert set(own) == {"R1", "R2", "R10"}
        for claim, evidence in own.items():
            rule, smallest = Rule.parse(claims[claim]["rule"]), claims[claim]["smallest"]["value"]
            holds = isinstance(evidence, Evidence) and rule.verdict(evidence, smallest) == "replicated"
            assert holds == CASES[case][2], (case, claim, evidence)
