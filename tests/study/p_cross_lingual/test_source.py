"""What the article prints is what the claims quote."""

import re

import pytest

from mechanism.report.claims import load_claims
from mechanism.study.p_cross_lingual.source import SOURCE

CLAIMS = load_claims()


@pytest.mark.parametrize(("claim", "value"), list(SOURCE[["claim", "value"]].itertuples(index=False)))
def test_a_number_of_the_source_stands_in_its_claim(claim: str, value: float):
    quoted = {
        float(number) for number in re.findall(r"\d+(?:\.\d+)?", CLAIMS[claim].source_figure.replace("1/5", "0.2"))
    }
    assert value in quoted


def test_every_number_of_the_claims_is_in_the_table():
    figures = {claim.id: claim.source_figure for claim in CLAIMS.values() if claim.id.startswith("P")}
    assert {name for name, text in figures.items() if re.search(r"\d", text)} == set(SOURCE["claim"])
