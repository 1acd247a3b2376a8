"""Claims are complete and valid; verdicts follow from rules."""

import math
import re
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mechanism.measure.evidence import Evidence, EvidenceError
from mechanism.report.claims import Claim, ClaimError, find_claim, load_claims, load_sources
from mechanism.report.files import BOOK, PACKAGE, REPOSITORY
from mechanism.report.scoreboard import claim_rows, claims_markdown, counts, scoreboard_markdown
from mechanism.report.verdicts import NAMES, Comparison, Rule, RuleError, Verdict

CLAIMS = load_claims()
finite = st.floats(-1e6, 1e6)
RULE = Rule.parse(
    {"replicated": ["estimate >= 0.8", "interval.low > 0"], "partly": ["estimate >= 0.5"], "refuted": ["estimate < 0"]}
)
SOURCE = {"title": "T", "name": "n", "chapter": "c", "key": "k", "asks": "q", "headline": ["R1"]}
ENTRY = {
    "id": "R1",
    "statement": "s",
    "source_figure": "f",
    "effect": "e",
    "unit": "u",
    "resampled": "documents",
    "smallest": {"value": 0.5, "because": "b"},
    "against": "zero",
    "test": "t",
    "criterion": "c",
    "rule": {"replicated": ["interval.low > 0"], "refuted": ["interval.high < smallest"]},
    "notebook": "10_x",
}


def evidence(estimate=0.9, low=0.7, high=1.0, n=10, null=math.nan, p=math.nan) -> Evidence:
    return Evidence(estimate, low, high, n, null, p)


def claims_file(folder: Path, *entries: dict) -> Path:
    path = folder / "claims.yaml"
    path.write_text(yaml.safe_dump({"sources": {"R": SOURCE}, "claims": list(entries)}))
    return path


def test_claims_are_numbered_from_one_source_by_source():
    sizes = Counter(claim.source.letter for claim in CLAIMS.values())
    assert list(sizes) == list(load_sources())
    assert list(CLAIMS) == [f"{letter}{i}" for letter, last in sizes.items() for i in range(1, last + 1)]


def test_every_source_has_its_chapter_and_every_chapter_its_source():
    chapters = {path.parent.name for path in (PACKAGE / "study").glob("*/claims.py")}
    assert {source.chapter for source in load_sources().values()} == chapters


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"title": "T", "key": "k"}, "source X: name is unknown or missing"),
        ({"title": "T", "key": "k", "name": "n", "chapter": "c", "colour": "red"}, "source X: colour is unknown"),
    ],
)
def test_an_incomplete_source_is_named(tmp_path: Path, entry: dict, told: str):
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump({"sources": {"X": entry}, "claims": []}))
    with pytest.raises(ClaimError, match=told):
        load_sources(tmp_path / "claims.yaml")


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_claim_is_complete(claim: Claim):
    assert all((claim.statement, claim.source_figure, claim.test, claim.criterion))
    assert claim.statement.endswith(".")
    assert claim.criterion.endswith(".")
    assert claim.notebook[:2].isdigit()
    assert claim.id.startswith(claim.source.letter)


def test_sources_are_in_the_bibliography():
    bibliography = (BOOK / "references.bib").read_text("utf-8")
    for claim in CLAIMS.values():
        assert f"{{{claim.source.key}," in bibliography


def test_unknown_claim_lists_the_known_ones():
    with pytest.raises(ClaimError, match=r"unknown claim 'X9': known are R1 R2"):
        find_claim("X9")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statement": ""}, "claim R1 has no statement"),
        ({"rule": None}, "claim R1 has no rule"),
        ({"effect": ""}, "claim R1 has no effect"),
        ({"smallest": None}, "claim R1 has no smallest"),
        ({"smallest": {"value": 0.1}}, "claim R1: smallest needs a number `value`, and in `because` the reason"),
        ({"smallest": {"value": "much", "because": "b"}}, "claim R1: smallest needs a number"),
        ({"smallest": 0.1}, "claim R1: smallest needs a number"),
        ({"against": ""}, "claim R1 has no against"),
        ({"id": "Z1"}, "claim Z1: an id"),
        ({"scale": "huge"}, "claim R1: scale is 'huge'"),
        ({"verdict": "replicated"}, "claim R1 has unknown fields: verdict"),
        ({"rule": {"replicated": ["estimate is large"], "refuted": ["n > 0"]}}, "claim R1: cannot read condition"),
        ({"rule": {"replicated": ["effect > 0"], "refuted": ["n > 0"]}}, "claim R1: unknown name 'effect'"),
        ({"rule": {"partly": ["n > 0"]}}, "claim R1: rule .* has no `replicated`"),
        ({"rule": {"replicated": ["n > 0"]}}, "claim R1: rule .* has no `refuted`"),
        ({"rule": {"replicated": ["n > 0"], "never": ["n > 0"]}}, "claim R1: rule has unknown keys never"),
    ],
)
def test_invalid_claim_is_named(tmp_path: Path, change: dict, message: str):
    with pytest.raises(ClaimError, match=message):
        load_claims(claims_file(tmp_path, ENTRY | change))


def test_doubled_claim_is_refused(tmp_path: Path):
    with pytest.raises(ClaimError, match="claim R1 stands twice"):
        load_claims(claims_file(tmp_path, ENTRY, ENTRY))


def test_missing_claims_file_is_named(tmp_path: Path):
    with pytest.raises(ClaimError, match="no claims file"):
        load_claims(tmp_path / "claims.yaml")


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (evidence(), Verdict.REPLICATED),
        (evidence(low=-0.1), Verdict.PARTLY),
        (evidence(estimate=0.6), Verdict.PARTLY),
        (evidence(estimate=0.4), Verdict.INCONCLUSIVE),
        (evidence(estimate=-0.4, low=-0.5), Verdict.REFUTED),
        (evidence(estimate=0.8), Verdict.REPLICATED),
    ],
)
def test_verdicts_by_example(found: Evidence, verdict: Verdict):
    assert RULE.verdict(found) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.6, 0.9, Verdict.REPLICATED),
        (0.1, 0.9, Verdict.PARTLY),
        (-0.1, 0.9, Verdict.INCONCLUSIVE),
        (-0.1, 0.4, Verdict.REFUTED),
        (0.1, 0.4, Verdict.REFUTED),
        (-0.9, -0.1, Verdict.REFUTED),
    ],
)
def test_refuted_and_inconclusive_part_at_the_smallest_effect(low: float, high: float, verdict: Verdict):
    rule = Rule.parse(
        {
            "replicated": ["interval.low >= smallest"],
            "partly": ["interval.low > 0", "interval.high >= smallest"],
            "refuted": ["interval.high < smallest"],
        }
    )
    assert rule.verdict(evidence((low + high) / 2, low, high), smallest=0.5) == verdict


def test_how_many_units_would_decide():
    rule = Rule.parse({"replicated": ["interval.low > 0"], "refuted": ["interval.high < smallest"]})
    near = rule.deciding_n(evidence(0.2, -0.2, 0.6, n=10), smallest=0.2)  # half of the width: a fourfold n
    assert near == pytest.approx(40, abs=2)
    assert rule.verdict(evidence(0.2, 0.001, 0.4), smallest=1.0) == Verdict.REPLICATED
    assert rule.deciding_n(evidence(0.0, -1.0, 1.0), smallest=0.0) is None


@given(estimate=st.floats(-2, 2), low=st.floats(0, 3), high=st.floats(0, 3), n=st.integers(1, 1000))
def test_the_number_that_would_decide_is_the_first_of_all(estimate: float, low: float, high: float, n: int):
    rule = Rule.parse({
        "replicated": ["interval.low >= smallest"],
        "partly": ["interval.low > 0", "interval.high >= smallest"],
        "refuted": ["interval.high < smallest"],
    })  # fmt: skip

    def shrunk(share: float) -> Evidence:
        return evidence(estimate, estimate - share * low, estimate + share * high, n=n)

    shares = [1 - step / 200 for step in range(200)]
    decided = [s for s in shares if rule.verdict(shrunk(s), smallest=0.5) != Verdict.INCONCLUSIVE]
    wanted = math.ceil(n / decided[0] ** 2) if decided else None
    assert rule.deciding_n(shrunk(1.0), smallest=0.5) == wanted


def test_a_rule_that_needs_an_effect_of_interest_must_be_given_one():
    rule = Rule.parse({"replicated": ["estimate > smallest"], "refuted": ["estimate < smallest"]})
    with pytest.raises(RuleError, match="needs smallest"):
        rule.verdict(evidence())


@given(estimate=finite, low=finite, width=st.floats(0, 1e6), n=st.integers(1, 10**9))
def test_verdict_agrees_with_python(estimate: float, low: float, width: float, n: int):
    found = Evidence(estimate, low, low + width, n)
    expected = (
        Verdict.REPLICATED
        if estimate >= 0.8 and low > 0
        else Verdict.PARTLY
        if estimate >= 0.5
        else Verdict.REFUTED
        if estimate < 0
        else Verdict.INCONCLUSIVE
    )
    assert RULE.verdict(found) == expected


@given(first=finite, second=finite)
def test_a_larger_estimate_never_has_a_worse_verdict(first: float, second: float):
    order = [Verdict.REFUTED, Verdict.INCONCLUSIVE, Verdict.PARTLY, Verdict.REPLICATED]
    ranks = [order.index(RULE.verdict(Evidence.exact(x, 1))) for x in sorted((first, second))]
    assert ranks == sorted(ranks)


@given(left=st.sampled_from(list(NAMES)), operator=st.sampled_from([">=", "<=", "==", "!=", ">", "<"]), right=finite)
def test_comparison_reads_what_it_writes(left: str, operator: str, right: float):
    comparison = Comparison(left, operator, repr(right))
    assert Comparison.parse(str(comparison)) == comparison
    assert Comparison.parse(f"{left}{operator}{right!r}") == comparison


@given(value=finite, other=finite)
def test_operators_and_their_opposites_exclude_each_other(value: float, other: float):
    found = evidence(estimate=value)
    for one, opposite in ((">=", "<"), ("<=", ">"), ("==", "!=")):
        holds = [Comparison.parse(f"estimate {sign} {other!r}").holds(found) for sign in (one, opposite)]
        assert sorted(holds) == [False, True]


@given(text=st.text(max_size=40))
def test_any_text_is_a_comparison_or_a_rule_error(text: str):
    try:
        parsed = Comparison.parse(text)
    except RuleError:
        return
    assert Comparison.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["__import__('os') > 0", "estimate > 0 or 1", "estimate", "1 <", "estimate => 1", 3])
def test_code_is_not_a_comparison(text: object):
    with pytest.raises(RuleError):
        Comparison.parse(text)


@pytest.mark.parametrize("name", ["null", "p"])
def test_what_a_rule_needs_and_was_not_recorded_is_an_error(name: str):
    rule = Rule.parse({"replicated": ["estimate > 0"], "partly": [f"{name} < 1"], "refuted": ["estimate < 0"]})
    with pytest.raises(RuleError, match=f"needs {name}"):
        rule.verdict(evidence())


@pytest.mark.parametrize(
    "numbers",
    [
        {"estimate": math.nan},
        {"estimate": math.inf},
        {"low": math.nan},
        {"high": -math.inf},
        {"null": math.inf},
        {"estimate": None},
        {"estimate": "2"},
        {"estimate": True},
        {"estimate": np.array([1.0, 2.0])},
        {"n": 2.5},
        {"low": 1.0, "high": 0.0},
        {"n": 0},
        {"n": -3},
        {"p": 1.5},
    ],
)
def test_no_verdict_rests_on_what_is_no_data(numbers: dict):
    with pytest.raises(EvidenceError):
        RULE.verdict(evidence(**numbers))


def test_a_null_that_is_not_a_number_is_none():
    assert evidence(null=math.nan, p=np.float32("nan")).checked() == evidence()
    assert Evidence(0.5, 0.1, 2.0, 3, null=1.0).mapped(lambda x: 1 / x) == Evidence(2.0, 0.5, 10.0, 3)


def test_label_tells_the_scale():
    assert CLAIMS["R1"].label(Verdict.REPLICATED) == "replicated at small scale"
    assert CLAIMS["R1"].label(Verdict.NOT_TESTABLE) == "not testable here"
    assert CLAIMS["M1"].label(Verdict.REPLICATED) == "replicated"
    assert CLAIMS["R1"].label(None) == "undecided"


def test_rows_without_records_are_undecided(tmp_path: Path):
    rows = claim_rows(tmp_path)
    assert [row["id"] for row in rows] == list(CLAIMS)
    assert all(row["verdict"] is None and row["estimate"] is None for row in rows)
    assert counts(rows)["undecided"] == len(list(CLAIMS))


def test_tables_have_equal_columns(tmp_path: Path):
    for text in (
        scoreboard_markdown("index", tmp_path),
        *(claims_markdown(x, "claims", tmp_path) for x in load_sources()),
    ):
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1


def test_a_problem_with_a_claim_is_reported_with_its_record():
    text = claims_markdown("R", "claims")
    (link,) = re.findall(r"\((https://[^)]*claim=R10&[^)]*)\)", text)
    asked = parse_qs(urlsplit(link).query)
    form = yaml.safe_load((REPOSITORY / ".github" / "ISSUE_TEMPLATE" / asked["template"][0]).read_text("utf-8"))
    assert {"claim", "record"} <= {field["id"] for field in form["body"]}
    assert find_claim("R10").digest in asked["record"][0]
    home = yaml.safe_load((REPOSITORY / "book" / "_config.yml").read_text("utf-8"))["repository"]["url"]
    assert link.startswith(f"{home}/issues/new?")
    assert yaml.safe_load((REPOSITORY / "CITATION.cff").read_text("utf-8"))["repository-code"] == home
