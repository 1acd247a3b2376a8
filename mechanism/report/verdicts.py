"""Verdicts computed from rules.

A rule lists comparisons per verdict, all of which must hold:

    replicated: ["estimate >= smallest", "interval.low > 0"]
    partly: ["interval.low > 0", "interval.high >= smallest"]
    refuted: ["interval.high < smallest"]

The first verdict, in this order, whose comparisons hold is the verdict; when none does, the evidence cannot tell and it
is `inconclusive`. A comparison has a name or a number on either side; names are `estimate`, `interval.low`,
`interval.high`, `n`, `null`, `p` and `smallest`, the claim's smallest effect of interest. Nothing is evaluated as code.
With intervals of 95 %, `interval.high < smallest` is an equivalence test by two one-sided tests of 2.5 % each.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from ..measure.evidence import Evidence

SMALLEST = "smallest"
NAMES = {"estimate": "estimate", "interval.low": "low", "interval.high": "high", "n": "n", "null": "null", "p": "p"}
"""Names that rules use besides `smallest`, and the fields of `Evidence` that they mean."""
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
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
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
            if side not in (*NAMES, SMALLEST) and not _NUMBER.fullmatch(side):
                known = ", ".join((*NAMES, SMALLEST))
                raise RuleError(f"unknown name {side!r} in condition {text!r}: known are {known}")
        return cls(*match.groups())

    def holds(self, evidence: Evidence, smallest: float = math.nan) -> bool:
        """Whether the condition holds.

        Raises:
            RuleError: the condition names something that the evidence, or the claim, lacks.
        """
        left, right = (self._value(side, evidence, smallest) for side in (self.left, self.right))
        return _OPERATORS[self.operator](left, right)

    def _value(self, side: str, evidence: Evidence, smallest: float) -> float:
        if side not in (*NAMES, SMALLEST):
            return float(side)
        value = smallest if side == SMALLEST else float(getattr(evidence, NAMES[side]))
        if math.isnan(value):
            raise RuleError(f"condition `{self}` needs {side}, and none was recorded")
        return value

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


@dataclass(frozen=True)
class Rule:
    """Conditions under which a claim is replicated, partly so, or refuted."""

    replicated: tuple[Comparison, ...]
    partly: tuple[Comparison, ...] = ()
    refuted: tuple[Comparison, ...] = ()

    @classmethod
    def parse(cls, payload: Any, required: tuple[str, ...] = ("replicated", "refuted")) -> "Rule":
        """Read a rule as it stands in the claims file.

        Raises:
            RuleError: a required verdict has no conditions, an unknown key, or an unreadable condition.
        """
        payload = payload if isinstance(payload, Mapping) else {}
        known = [field.name for field in fields(cls)]
        if unknown := set(payload) - set(known):
            raise RuleError(f"rule has unknown keys {', '.join(sorted(unknown))}: known are {', '.join(known)}")
        if missing := [name for name in required if not payload.get(name)]:
            raise RuleError(f"rule {dict(payload)!r} has no `{missing[0]}` conditions")
        return cls(*(tuple(map(Comparison.parse, payload.get(name) or ())) for name in known))

    def verdict(self, evidence: Evidence, smallest: float = math.nan) -> Verdict:
        """The verdict on the evidence.

        >>> rule = Rule.parse({"replicated": ["interval.low > smallest"], "refuted": ["interval.high < smallest"]})
        >>> str(rule.verdict(Evidence(1.2, -0.1, 2.5, n=300), smallest=0.7))
        'inconclusive'

        Args:
            smallest: effect of interest, in the unit of the estimate.

        Raises:
            EvidenceError: see `Evidence.checked`.
            RuleError: the evidence lacks something that any condition names, also one that would not decide.
        """
        evidence = evidence.checked()
        held = {name: [c.holds(evidence, smallest) for c in conditions] for name, conditions in self._parts()}
        return Verdict(next((name for name, all_of in held.items() if all(all_of)), Verdict.INCONCLUSIVE))

    def deciding_n(self, evidence: Evidence, smallest: float = math.nan) -> int | None:
        """Units with which the same estimate would no longer be inconclusive, its interval shrinking with their root.

        None where no number of units would do, as with an estimate at a bound, or where a p-value is lacking.
        """

        def at(share: float) -> bool:
            low, high = (evidence.estimate + share * (end - evidence.estimate) for end in (evidence.low, evidence.high))
            return self.verdict(evidence._replace(low=low, high=high), smallest) != Verdict.INCONCLUSIVE

        coarse = next((step for step in range(0, 200, 10) if at(1 - step / 200)), 200)
        fine = [1 - step / 200 for step in range(max(coarse - 9, 0), min(coarse + 1, 200))]
        share = next((share for share in fine if at(share)), None)
        return None if share is None else math.ceil(evidence.n / share**2)

    def _parts(self) -> list[tuple[str, tuple[Comparison, ...]]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name)]

    def __str__(self) -> str:
        return "; ".join(f"{name} if {' and '.join(map(str, conditions))}" for name, conditions in self._parts())
