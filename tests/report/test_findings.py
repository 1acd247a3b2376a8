"""The box that opens a page: why a claim has its verdict, in the words of its rule, and its figure."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mechanism.measure.evidence import Evidence
from mechanism.report.claims import find_claim, load_claims
from mechanism.report.findings import captions, figures_of, findings_markdown, why
from mechanism.report.record import evidence_of, read_records
from mechanism.report.verdicts import Rule, Verdict

RULE = Rule.parse(
    {
        "replicated": ["interval.low > 0", "estimate >= smallest", "p < 0.05"],
        "partly": ["interval.low > 0", "interval.high >= smallest"],
        "refuted": ["interval.high < smallest"],
    }
)
CLAIM = replace(find_claim("R1"), rule=RULE, smallest=0.5)


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        (
            Evidence(0.6, 0.2, 0.9, 3, p=0.01),
            "Replicated, as the interval lies above zero, the estimate reaches the smallest effect of interest "
            "(0.5) and p = 0.01 is below 0.05.",
        ),
        (
            Evidence(0.4, 0.2, 0.9, 3, p=0.2),
            "In part, as the interval lies above zero and the effect may reach the smallest effect of interest (0.5); "
            "not more, as the estimate falls short of the smallest effect of interest (0.5) and p = 0.2 is not "
            "below 0.05.",
        ),
        (
            Evidence(0.1, -0.2, 0.4, 3, p=0.2),
            "Refuted, as the interval lies below the smallest effect of interest (0.5).",
        ),
        (
            Evidence(0.6, -0.2, 0.9, 3, p=0.01),
            "Not replicated, as the interval does not lie above zero; not refuted, as the interval does not lie below "
            "the smallest effect of interest (0.5).",
        ),
    ],
)
def test_the_conditions_that_decide_are_told(evidence: Evidence, told: str):
    assert why(CLAIM, evidence) == told


def test_a_counted_number_has_no_interval():
    counted = replace(CLAIM, rule=Rule.parse({"replicated": ["estimate == 1"], "refuted": ["estimate < smallest"]}))
    assert why(counted, Evidence.exact(1.0, 4)) == "Replicated, as the number (1) is 1."
    assert why(counted, Evidence.exact(0.2, 4)).endswith(
        "the number (0.2) is below the smallest effect of interest (0.5)."
    )


def test_every_recorded_verdict_can_be_told():
    records = read_records()
    told = {name: why(load_claims()[name], found) for name in records if (found := evidence_of(records[name]))}
    assert len(told) > 30
    words = {Verdict.PARTLY: "In part", Verdict.INCONCLUSIVE: "Not replicated"}
    for name, text in told.items():
        verdict = Verdict(records[name]["verdict"])
        assert text.startswith(words.get(verdict, str(verdict).capitalize())), name
        assert not re.search(r"\bas ;|as \.|nan", text), name


def test_every_claim_stands_on_its_page_with_badge_and_reason():
    for notebook in {claim.notebook for claim in load_claims().values()}:
        text = findings_markdown(f"notebooks/{notebook}")
        for claim in load_claims().values():
            assert (f"**{claim.id}** {claim.statement}" in text) == (claim.notebook == notebook)
            judged = claim.notebook == notebook and claim.id in read_records()
            assert (f'#claim-{claim.id}"' in text) == judged, "where its record stands"


def test_without_records_nothing_is_said_to_be_found(tmp_path: Path):
    text = findings_markdown("notebooks/22_reweighting", tmp_path)
    assert "undecided" in text
    assert "Not judged yet." in text


def test_a_claim_has_the_figure_beside_its_verdict():
    assert figures_of("11_steering") == {"R6": "fig-random-experts", "R7": "fig-controls", "R8": "fig-gap-gain"}
    assert figures_of("41_cross_lingual_transfer")["P8"] == "fig-noise"
    named = {name for claim in load_claims().values() for name in figures_of(claim.notebook)}
    assert named <= set(load_claims())
    assert len(named) > 30


def test_captions_begin_with_what_was_found():
    told = captions("notebooks/11_steering")
    assert set(told) == {"fig-random-experts", "fig-controls"}
    record = read_records()["R6"]
    assert told["fig-random-experts"].startswith(f"R6 {record['verdict']}: {record['estimate']:.3g} [")
    assert captions("notebooks/30_multi_head")["fig-mh-differences"].count(";") == 3
