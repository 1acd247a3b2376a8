"""The claims that the report judges, from `data/claims.yaml`."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..corpus.store import absent
from ..measure.evidence import Evidence
from .files import CLAIMS, read_yaml
from .verdicts import Rule, RuleError, Verdict

SCALES = ("small", "full", "none")
_TEXTS = ("statement", "source_figure", "effect", "unit", "resampled", "against", "test", "criterion", "notebook")


class ClaimError(ValueError):
    """A claims file that is not valid, an unknown claim, or a record that its rule did not judge."""


@dataclass(frozen=True)
class Source:
    """A work whose claims are judged.

    Attributes:
        letter: with which the ids of its claims begin; title; name: of the chapter about it, for readers.
        chapter: folder of `mechanism/study` with the chapter's code; key: in the bibliography.
        asks: its question, for the front page; headline: ids of the claims that stand for it there.
        arxiv: id, None for a work that is not there; about: a remark below the chapter's name.
    """

    letter: str
    title: str
    name: str
    chapter: str
    key: str
    asks: str
    headline: tuple[str, ...]
    arxiv: str | None = None
    about: str = ""


@dataclass(frozen=True)
class Testbed:
    """Other models than the report's own, in which some claims are judged too, by the same rules.

    Attributes:
        name: under which their records are kept; title: for readers; notebook: name of the notebook that judges.
        test: what is measured there, in place of the claims' own tests.
        resampled: units that intervals resample there, by claim: the claims that are judged.
    """

    name: str
    title: str
    notebook: str
    test: str
    resampled: Mapping[str, str]


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        id: letter of the source and a number, as in `R1`.
        source: where it is made.
        statement: what is claimed; source_figure: the number or figure that the source gives.
        effect: what the estimate is; unit: of the estimate; resampled: the units that its interval resamples.
        smallest: effect of interest, in that unit; because: why this size.
        against: name of the null, what the estimate is held against.
        test: what we measure; criterion: when it counts as replicated, in words; rule: the same as conditions.
        notebook: name of the notebook that judges it.
        scale: `small` when only small models can be run here, `full` at the source's scale, `none` where scale does not
            matter, as in a proof.
    """

    id: str
    source: Source
    statement: str
    source_figure: str
    effect: str
    unit: str
    resampled: str
    against: str
    test: str
    criterion: str
    notebook: str
    smallest: float
    because: str
    rule: Rule
    scale: str

    def verdict(self, evidence: Evidence) -> Verdict:
        """The verdict that the rule gives.

        Raises:
            RuleError: the evidence lacks what the rule asks for.
        """
        return self.rule.verdict(evidence, self.smallest)

    def on(self, testbed: Testbed) -> "Claim":
        """The claim as it is judged on a testbed.

        Raises:
            ClaimError: it is not judged there.
        """
        if self.id not in testbed.resampled:
            raise ClaimError(f"claim {self.id} is not judged on {testbed.title}: {' '.join(testbed.resampled)} are")
        resampled = testbed.resampled[self.id]
        return replace(self, resampled=resampled, test=testbed.test, notebook=testbed.notebook)

    @property
    def digest(self) -> str:
        """Hash of all that decides a verdict: what is measured, on what units, against what, by which rule."""
        names = ("effect", "unit", "resampled", "smallest", "against", "test", "criterion")
        text = json.dumps([*(getattr(self, name) for name in names), str(self.rule)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def label(self, verdict: Verdict | None) -> str:
        """The verdict as readers see it: with the scale it was reached at, `undecided` for None."""
        if verdict is None:
            return "undecided"
        small = self.scale == "small" and verdict != Verdict.NOT_TESTABLE
        return f"{verdict} at small scale" if small else str(verdict)


def load_claims(path: Path = CLAIMS) -> dict[str, Claim]:
    """Every claim by its id, in the file's order.

    Raises:
        ClaimError: no file, or a claim that is incomplete, doubled or has an unreadable rule; the message names it.
    """
    sources = load_sources(path)
    claims: dict[str, Claim] = {}
    for entry in _read(path)["claims"]:
        claim = _claim(entry, sources)
        if claim.id in claims:
            raise ClaimError(f"claim {claim.id} stands twice in {path.name}")
        claims[claim.id] = claim
    return claims


def find_claim(claim_id: str, testbed: str = "") -> Claim:
    """The claim of an id, as it is judged on a testbed if one is named.

    Raises:
        ClaimError: no such claim or testbed; the message lists the known ones.
    """
    claims = load_claims()
    if claim_id not in claims:
        raise ClaimError(f"unknown claim {claim_id!r}: known are {' '.join(claims)}")
    testbeds = load_testbeds() if testbed else {}
    if testbed and testbed not in testbeds:
        raise ClaimError(f"unknown testbed {testbed!r}: known are {' '.join(testbeds)}")
    return claims[claim_id].on(testbeds[testbed]) if testbed else claims[claim_id]


def load_testbeds(path: Path = CLAIMS) -> dict[str, Testbed]:
    """Every testbed by its name.

    Raises:
        ClaimError: no file, a testbed with an unknown field or without one, or with a claim that there is not.
    """
    known, claims, found = [field.name for field in fields(Testbed)][1:], load_claims(path), {}
    for name, entry in (_read(path).get("testbeds") or {}).items():
        if wrong := sorted(set(entry) ^ set(known)) or sorted(set(entry["resampled"]) - set(claims)):
            raise ClaimError(f"testbed {name}: {wrong[0]} is unknown or missing; a testbed has {', '.join(known)}")
        found[name] = Testbed(name, **{**entry, "test": " ".join(entry["test"].split())})
    return found


def load_sources(path: Path = CLAIMS) -> dict[str, Source]:
    """Every source by its letter, in the file's order.

    Raises:
        ClaimError: no file, or a source that lacks a field or has an unknown one; the message names both.
    """
    return {letter: _source(letter, entry) for letter, entry in _read(path)["sources"].items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ClaimError(absent(f"claims file at {path}"))
    return read_yaml(path)


def _source(letter: str, entry: Mapping[str, Any]) -> Source:
    known = [field.name for field in fields(Source)][1:]
    if wrong := sorted(set(entry) - set(known)) or [name for name in known[:6] if not entry.get(name)]:
        raise ClaimError(f"source {letter}: {wrong[0]} is unknown or missing; a source has {', '.join(known)}")
    return Source(letter, **{**entry, "headline": tuple(entry["headline"])})


def _claim(entry: Mapping[str, Any], sources: Mapping[str, Source]) -> Claim:
    name = entry.get("id", "without id")
    if unknown := set(entry) - {"id", "rule", "scale", "smallest", *_TEXTS}:
        raise ClaimError(f"claim {name} has unknown fields: {', '.join(sorted(unknown))}")
    for field in ("id", "rule", "smallest", *_TEXTS):
        if not entry.get(field):
            raise ClaimError(f"claim {name} has no {field}")
    if name[:1] not in sources or not name[1:].isdigit():
        raise ClaimError(f"claim {name}: an id is a source's letter ({' '.join(sources)}) and a number")
    scale = entry.get("scale", "small")
    if scale not in SCALES:
        raise ClaimError(f"claim {name}: scale is {scale!r}, it must be one of {', '.join(SCALES)}")
    texts = {field: " ".join(str(entry[field]).split()) for field in _TEXTS}
    value, because = _smallest(name, entry["smallest"])
    rule = _rule(name, entry["rule"])
    return Claim(id=name, source=sources[name[0]], smallest=value, because=because, rule=rule, scale=scale, **texts)


def _smallest(name: str, payload: Any) -> tuple[float, str]:
    value, because = (payload.get(key) for key in ("value", "because")) if isinstance(payload, Mapping) else (None, "")
    if not isinstance(value, int | float) or not math.isfinite(value) or not because:
        raise ClaimError(f"claim {name}: smallest needs a number `value`, and in `because` the reason for it")
    return float(value), " ".join(because.split())


def _rule(name: str, payload: Any) -> Rule:
    try:
        return Rule.parse(payload)
    except RuleError as error:
        raise ClaimError(f"claim {name}: {error}") from None
