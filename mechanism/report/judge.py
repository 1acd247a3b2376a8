"""The verdicts of a chapter: recorded for the report's own model, and in a run of its own for any other."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from ..measure.evidence import Cell, Evidence, NotTestable
from .charts import lines, panels
from .claims import find_claim
from .provenance import Provenance
from .record import Record, keep_units, leave_undecided, record
from .tables import interval_text
from .verdicts import Verdict

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
        testbed: where the claims are judged, if not on the report's model; see `Testbed`.
        awaits: command that records the full results, where a page has only a sample of them: too few items to record a
            verdict of the report. Empty where the evidence is the full one.
        judged: records by claim; undecided: reasons by claim; analyses: others that could have been made, by claim.
    """

    model: str
    origin: Provenance
    awaits: str = ""
    testbed: str = ""
    judged: dict[str, Record] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)
    analyses: dict[str, Sequence[Cell]] = field(default_factory=dict)

    def __call__(
        self, claim: str, evidence: Evidence | str | None, reason: str = "", analyses: Sequence[Cell] = ()
    ) -> Record | Markdown:
        """The record of a claim, or the sentence that leaves it undecided.

        Args:
            evidence: None, or the reason itself, if it cannot be had; as `NotTestable` where no run could have it.
            reason: why there is no evidence.
            analyses: others that could have been made; see `multiverse`.

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
        if analyses and not silent:
            self.analyses[claim] = analyses
        self.judged[claim] = record(
            claim, evidence, not_testable=reason if silent else "", origin=self.origin, write=self.own_run or ours,
            standing=STANDING if self.own_run or not ours else "", analyses=self.analyses.get(claim, ()),
            testbed=self.testbed,
        )  # fmt: skip
        if self.own_run and evidence is not None and not self.testbed:
            keep_units(claim, evidence, bool(self.awaits))
        return self.judged[claim]

    def curves(self) -> Figure:
        """A panel for each claim with other analyses: their estimates in ascending order with intervals, and a dashed
        line at the smallest effect of interest.

        Raises:
            ValueError: no claim has any.
        """
        shown, own = {}, {}
        for name, cells in self.analyses.items():
            rows = pd.DataFrame([cell.evidence.row() for cell in cells]).sort_values("estimate", ignore_index=True)
            shown[name] = pd.concat({"analyses": rows[["estimate", "low", "high"]]}, axis=1).rename_axis("analysis")
            own[name] = {"reference": find_claim(name).smallest, "ylabel": find_claim(name).unit}
        return panels(lines, shown, own=own, share="", legend="", size=(3.4, 3.4))

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


def planted_found(answers: Iterable[tuple[str, str, bool, Evidence | str]]) -> pd.DataFrame:
    """What rules say of models in which it is known what they must: `claim`, `planted`, `must hold`, `estimate` with
    its interval or the reason why there is none, `verdict`, and whether it was `found`.

    Args:
        answers: claim, what was planted, whether the claim must hold, and what it is judged on.
    """
    rows, told = [], {True: "yes", False: "no"}
    for claim, planted, must, found in answers:
        verdict = None if isinstance(found, str) else find_claim(claim).verdict(found)
        shown = found if isinstance(found, str) else interval_text(pd.DataFrame([found.row()]))[0]
        row = {"claim": claim, "planted": planted, "must hold": told[must], "estimate": shown}
        rows.append(row | {"verdict": str(verdict or "none"), "found": told[verdict == Verdict.REPLICATED]})
    return pd.DataFrame(rows)
