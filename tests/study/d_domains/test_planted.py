"""The claims' own tests and rules on models whose answer is known."""

import pytest

from mechanism.measure.evidence import Evidence
from mechanism.report.claims import find_claim
from mechanism.study.d_domains.planted import PLANTED, planted_answers


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("true", [True, False])
def test_what_is_planted_is_found_and_what_is_not_is_not(true: bool, seed: int):
    found = planted_answers(true, seed)
    assert list(found) == list(PLANTED)
    verdicts = {}
    for claim, own in found.items():
        assert isinstance(own, Evidence)
        verdicts[claim] = str(find_claim(claim).verdict(own))
    if true:
        assert verdicts == dict.fromkeys(PLANTED, "replicated")
    else:
        assert not {"replicated", "partly"} & set(verdicts.values())
        assert {verdicts[claim] for claim in ("D1", "D2", "D7")} == {"refuted"}
