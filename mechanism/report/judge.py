"""The verdicts of a chapter: recorded for the report's own model, and in a run of its own for any other."""

import os
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from IPython.display import Markdown

from ..measure.evidence import Evidence, NotTestable
from .claims import find_claim
from .provenance import Provenance
from .record import Record, leave_undecided, record

EMBEDDED = "embedded"
RUN = "MECHANISM_RUN"
"""Environment variable that `mechanism run` sets: records go into the folder of that run."""

STANDING = "not recorded in the report; this run's own verdict"


@dataclass
class Judge:
    """Judges claims on evidence and remembers what became of them.

    Attributes:
        model: as the notebook names it. Records of the report are written for its own model alone; in a run of
            `mechanism run` those of any model are, into its folder.
        origin: provenance of the evidence.
        awaits: command that records the full results, where a page has only a sample of them: too few items to record a
            verdict of the report. Empty where the evidence is the full one.
        judged: records by claim; undecided: reasons by claim.
    """

    model: str
    origin: Provenance
    awaits: str = ""
    judged: dict[str, Record] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)

    def __call__(self, claim: str, evidence: Evidence | str | None, reason: str = "") -> Record | Markdown:
        """The record of a claim, or the sentence that leaves it undecided.

        Args:
            evidence: None, or the reason itself, if it cannot be had; as `NotTestable` where no run could have it.
            reason: why there is no evidence.

        Raises:
            ValueError: neither evidence nor a reason; otherwise see `record`.
        """
        silent = isinstance(evidence, NotTestable)
        if isinstance(evidence, str):
            reason, evidence = evidence, None
        if (silent or evidence is not None) and self.awaits and self.model == EMBEDDED and not self.own_run:
            evidence, silent, reason = None, False, f"the full results are not recorded; `{self.awaits}` makes them"
        if evidence is None and not silent:
            if not reason.strip():
                raise ValueError(f"claim {claim} has no evidence and no reason: say what is missing")
            self.undecided[find_claim(claim).id] = reason
            if self.own_run:
                leave_undecided(claim, reason)
            return Markdown(f"*{claim} stays undecided here: {reason.rstrip('.')}.*")
        ours = self.model == EMBEDDED
        self.judged[claim] = record(
            claim, evidence, not_testable=reason if silent else "", origin=self.origin, write=self.own_run or ours,
            standing=STANDING if self.own_run or not ours else "",
        )  # fmt: skip
        return self.judged[claim]

    @property
    def own_run(self) -> bool:
        """Whether this is a run of `mechanism run`."""
        return bool(os.environ.get(RUN))

    def table(self) -> pd.DataFrame:
        """One row per claim, in the order of the claims file's numbers: `statement`, `verdict`, `estimate`, `low`,
        `high`, `n`, `p`, and `note`, which for an undecided claim is the reason."""
        rows: dict[str, dict[str, Any]] = {}
        for claim, one in self.judged.items():
            found = {"note": one.note} if one.evidence is None else one.evidence._asdict()
            label = one.claim.label(one.verdict)
            rows[claim] = {"statement": one.claim.statement, "verdict": label, **found}
        for claim, reason in self.undecided.items():
            rows[claim] = {"statement": find_claim(claim).statement, "verdict": "undecided", "note": reason}
        columns = ["statement", "verdict", "estimate", "low", "high", "n", "p", "note"]
        table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("claim")
        return table.loc[sorted(rows, key=lambda claim: (claim[0], int(claim[1:])))]
