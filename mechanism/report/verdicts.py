"""Verdicts computed from rules that were fixed before the run.

A rule lists comparisons per verdict, all of which must hold:

    replicated: ["estimate >= 0.8", "interval.low > 0"]
    partly: ["estimate >= 0.5"]

The first verdict whose comparisons hold is the verdict; when none does it is `not replicated`. A comparison has a name
or a number on either side; names are `estimate`, `interval.low`, `interval.high`, `n`, `null` and `p`. Nothing is
evaluated as code.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..measure.evidence import Evidence

NAMES = {"estimate": "estimate", "interval.low": "low", "interval.high": "high", "n": "n", "null": "null", "p": "p"}
"""Names that rules use, and the fields of `Evidence` that they mean."""
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"\s*(\S+?)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class RuleError(ValueError):
    """A rule that cannot be read, or evidence that lacks what it asks for."""


class Verdict(StrEnum):
    """What became of a claim."""

    REPLICATED = "replicated"
    PARTLY = "partly"
    NOT_REPLICATED = "not replicated"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Comparison:
    """One condition: two sides, each a name or a number, and the operator between them."""

    left: str
    operator: str
    right: str

    @classmethod
    def parse(cls, text: Any) -> "Comparison":
        """Read `left operator right`.

        Raises:
            RuleError: the text is no such comparison, or names something unknown.
        """
        match = _COMPARISON.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise RuleError(f"cannot read condition {text!r}: write `name operator number`, as in `interval.low > 0`")
        for side in (match[1], match[3]):
            if side not in NAMES and not _NUMBER.fullmatch(side):
                raise RuleError(f"unknown name {side!r} in condition {text!r}: known are {', '.join(NAMES)}")
        return cls(*match.groups())

    def holds(self, evidence: Evidence) -> bool:
        """Whether the condition holds.

        Raises:
            RuleError: the condition names something that the evidence lacks.
        """
        left, right = (self._value(side, evidence) for side in (self.left, self.right))
        return _OPERATORS[self.operator](left, right)

    def _value(self, side: str, evidence: Evidence) -> float:
        if side not in NAMES:
            return float(side)
        value = float(getattr(evidence, NAMES[side]))
        if math.isnan(value):
            raise RuleError(f"condition `{self}` needs {side}, and none was recorded")
        return value

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


@dataclass(frozen=True)
class Rule:
    """Conditions under which a claim is replicated, or partly so."""

    replicated: tuple[Comparison, ...]
    partly: tuple[Comparison, ...] = ()

    @classmethod
    def parse(cls, payload: Any) -> "Rule":
        """Read a rule as it stands in the claims file.

        Raises:
            RuleError: no `replicated` conditions, an unknown key, or an unreadable condition.
        """
        if not isinstance(payload, Mapping) or not payload.get("replicated"):
            raise RuleError(f"rule {payload!r} has no `replicated` conditions")
        if unknown := set(payload) - {"replicated", "partly"}:
            raise RuleError(f"rule has unknown keys {', '.join(sorted(unknown))}: known are replicated, partly")
        return cls(*(tuple(map(Comparison.parse, payload.get(key) or ())) for key in ("replicated", "partly")))

    def verdict(self, evidence: Evidence) -> Verdict:
        """The verdict on the evidence.

        >>> rule = Rule.parse({"replicated": ["interval.low > 0", "estimate > null"], "partly": ["estimate > null"]})
        >>> str(rule.verdict(Evidence(1.2, -0.1, 2.5, n=300, null=0.4)))
        'partly'

        Raises:
            EvidenceError: see `Evidence.checked`.
            RuleError: the evidence lacks something that any condition names, also one that would not decide.
        """
        evidence = evidence.checked()
        replicated, partly = ([c.holds(evidence) for c in conditions] for conditions in (self.replicated, self.partly))
        if all(replicated):
            return Verdict.REPLICATED
        return Verdict.PARTLY if partly and all(partly) else Verdict.NOT_REPLICATED

    def __str__(self) -> str:
        parts = [("replicated", self.replicated), ("partly", self.partly)]
        return "; ".join(f"{name} if {' and '.join(map(str, cs))}" for name, cs in parts if cs)
