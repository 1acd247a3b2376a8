"""The rules' error rates: the simulation finds what is planted, and the record is of today's rules."""

from dataclasses import replace

import pandas as pd
import pytest

from mechanism.measure.evidence import Evidence
from mechanism.report.claims import ClaimError, load_claims
from mechanism.report.error_rates import RECORD, Design, load_designs, rates, simulate
from mechanism.report.verdicts import Rule

CLAIMS = load_claims()
CLAIM = replace(
    next(iter(CLAIMS.values())),
    smallest=1.0,
    rule=Rule.parse(
        {
            "replicated": ["interval.low > 0", "estimate >= smallest"],
            "partly": ["interval.low > 0", "interval.high >= smallest"],
            "refuted": ["interval.high < smallest"],
        }
    ),
)
FOUND = Evidence(0.5, 0.1, 0.9, n=30)


def test_every_claim_has_a_design_or_the_reason_why_it_has_none():
    designs, without = load_designs()
    assert set(designs) | set(without) == set(CLAIMS)
    assert not set(designs) & set(without)


@pytest.mark.parametrize("units", ["seeds", "means"])
def test_a_sound_rule_rarely_errs_and_finds_a_large_effect(units: str):
    table = rates(CLAIM, Design(units, absent=0.0, source=1.5), FOUND, runs=300).set_index("truth")
    assert table.loc["absent", "replicated"] <= 0.05
    assert table.loc["absent", "refuted"] > 0.8
    assert table.loc["source", ["replicated", "partly"]].sum() > 0.95
    assert (table[["replicated", "partly", "refuted", "inconclusive"]].sum(axis=1).round(9) == 1).all()


def test_a_rule_without_an_interval_errs_often_and_the_simulation_says_so():
    loose = replace(CLAIM, rule=Rule.parse({"replicated": ["estimate > 0"], "refuted": ["estimate < 0"]}))
    table = rates(loose, Design("means", absent=0.0, source=1.5), FOUND, runs=300).set_index("truth")
    assert table.loc["absent", "replicated"] == pytest.approx(0.5, abs=0.1)


def test_few_units_leave_more_open_than_many():
    few, many = (
        rates(CLAIM, Design("seeds", 0.0, 1.5, n=n), FOUND, runs=200).set_index("truth")["inconclusive"]["absent"]
        for n in (3, 60)
    )
    assert few > many


def test_the_record_is_of_todays_rules_and_is_found_again():
    recorded = pd.read_csv(RECORD).set_index(["claim", "truth"])
    assert {claim: CLAIMS[claim].digest for claim, _ in recorded.index} == {
        claim: digest for (claim, _), digest in recorded["digest"].items()
    }
    again = simulate(runs=60).set_index(["claim", "truth"])
    assert set(again.index) == set(recorded.index)
    gap = (again["replicated"] - recorded["replicated"]).abs()
    assert gap.max() < 0.3, gap.idxmax()


def test_no_statistical_rule_calls_chance_a_replication():
    recorded = pd.read_csv(RECORD).query("truth == 'absent'").set_index("claim")
    assert recorded["replicated"].max() <= 0.05 + 3 * (0.05 * 0.95 / recorded["runs"].min()) ** 0.5


def test_unknown_units_are_refused():
    with pytest.raises(ClaimError, match="known are seeds, means, languages"):
        Design("votes", 0.0, 1.0)
