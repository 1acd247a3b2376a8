"""Figures of the sources of chapter D, against what the claims quote."""

import re

import pytest

from mechanism.report.claims import find_claim
from mechanism.study.d_domains.source import NO_NUMBER, SOURCE


def test_claims_quote_the_sources_figures():
    """All numbers of a claim's figure are among those that its source reports."""
    for claim in ("D5", "D7"):
        quoted = re.findall(r"\d+\.\d+", find_claim(claim).source_figure)
        own = SOURCE.loc[SOURCE["claim"] == claim, "value"].tolist()
        assert quoted
        assert set(map(float, quoted)) <= set(own)


@pytest.mark.parametrize("claim", ["D1", "D2", "D3", "D4", "D8"])
def test_claims_without_a_number_say_so(claim):
    assert find_claim(claim).source_figure == NO_NUMBER
    assert claim not in SOURCE["claim"].values
