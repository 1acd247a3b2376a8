"""The ledger of amendments, `data/amendments.yaml`: every change of what decides a claim since its first record."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from ..measure.evidence import Evidence
from .claims import Claim, ClaimError
from .files import AMENDMENTS, read_yaml
from .verdicts import Rule, RuleError, Verdict

PARTS = ("statement", "estimate", "test", "criterion", "rule")
"""What of a claim an amendment can change; `estimate` means that the number itself is another one."""


class AmendmentError(ClaimError):
    """A ledger that cannot be read, is out of order, or does not end in the rules of today."""


@dataclass(frozen=True)
class Amendment:
    """One change.

    Attributes:
        claim: id; date: of the change; changed: which of `PARTS`.
        old, new: what it was and what it is, in words; reason: why.
        verdicts: under the old and the new definition, when the change was made.
        old_rule: conditions before, None where they did not change; same_estimate: whether they can be asked of
            the evidence that is recorded now.
        commit: short hash of the change; after: `Claim.digest` from then on.
    """

    claim: str
    date: date
    changed: tuple[str, ...]
    old: str
    new: str
    reason: str
    verdicts: Mapping[str, str]
    old_rule: Rule | None = None
    same_estimate: bool = False
    commit: str = ""
    after: str = ""

    def old_verdict(self, evidence: Evidence | None) -> str:
        """What the old rule makes of evidence of now; as recorded, where that cannot be asked."""
        if self.old_rule is None or not self.same_estimate or evidence is None:
            return self.verdicts["old"]
        found = self.old_rule.verdict(evidence)
        without = found == Verdict.INCONCLUSIVE and not self.old_rule.refuted
        return "not replicated" if without else str(found)


def load_amendments(claims: Mapping[str, Claim], path: Path = AMENDMENTS) -> dict[str, list[Amendment]]:
    """The amendments of each claim, oldest first; claims without any are left out.

    Args:
        claims: those of today, by id.

    Raises:
        AmendmentError: an entry is incomplete, names an unknown claim, or is older than the one before it; or a claim
            with amendments is not what its last one says. The message names the claim.
    """
    entries = read_yaml(path) if path.exists() else []
    ledger: dict[str, list[Amendment]] = {}
    for entry in entries or []:
        found = _amendment(entry)
        if found.claim not in claims:
            raise AmendmentError(f"an amendment names claim {found.claim!r}, which is not in the claims file")
        earlier = ledger.setdefault(found.claim, [])
        if earlier and found.date < earlier[-1].date:
            raise AmendmentError(f"claim {found.claim}: {found.date} stands after {earlier[-1].date} in the ledger")
        earlier.append(found)
    for name, own in ledger.items():
        if own[-1].after != claims[name].digest:
            raise AmendmentError(
                f"claim {name} is not what its last amendment of {own[-1].date} says: write another one, with "
                f"`after: {claims[name].digest}`"
            )
    return ledger


def _amendment(entry: Mapping[str, Any]) -> Amendment:
    name, known = entry.get("claim", "without id"), {field.name for field in fields(Amendment)}
    needed = ("claim", "date", "changed", "old", "new", "reason", "verdicts")
    if wrong := sorted(set(entry) - known) or [field for field in needed if not entry.get(field)]:
        raise AmendmentError(f"amendment of claim {name}: {wrong[0]} is unknown or missing")
    if set(entry["changed"]) - set(PARTS) or not {"old", "new"} <= set(entry["verdicts"]):
        raise AmendmentError(
            f"amendment of claim {name}: `changed` lists some of {', '.join(PARTS)}; `verdicts` has old and new"
        )
    if not isinstance(entry["date"], date):
        raise AmendmentError(f"amendment of claim {name}: {entry['date']!r} is no date such as 2026-11-28")
    try:
        rule = Rule.parse(entry["old_rule"], ("replicated",)) if entry.get("old_rule") else None
    except RuleError as error:
        raise AmendmentError(f"amendment of claim {name}: {error}") from None
    texts = {field: " ".join(str(entry[field]).split()) for field in ("old", "new", "reason")}
    return Amendment(**{**entry, **texts, "changed": tuple(entry["changed"]), "old_rule": rule})
