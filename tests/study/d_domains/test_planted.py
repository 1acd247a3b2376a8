"""The claims' own tests and rules on models whose answer is known."""

import pytest

from mechanism.measure.evidence import Evidence
from mechanism.measure.units import EXPERTS, Units, UnpairedError, paired
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


def test_two_models_are_compared_on_the_documents_they_share_and_never_on_experts():
    one, two = (
        {claim: own for claim, own in planted_answers(true).items() if isinstance(own, Evidence)}
        for true in (True, False)
    )
    for claim in ("D3", "D4", "D6"):
        assert one[claim].units == EXPERTS
    for claim in ("D2", "D7"):
        first, second = one[claim], two[claim]
        assert isinstance(first.units, Units)
        assert isinstance(second.units, Units)
        found = paired(first.units, second.units, (first.estimate, second.estimate))
        assert found.p < 0.01
        assert found.estimate == pytest.approx(second.estimate - first.estimate)
        assert paired(first.units, first.units, (first.estimate,) * 2)[2:6] == (0, 0, 0, 1)
    sides = [own["D1"].units for own in (one, two)]
    with pytest.raises(UnpairedError, match="the documents are not the same in both"):
        paired(sides[0], sides[1], (0.0, 0.0))  # type: ignore[arg-type]  # the second has its documents relabelled
