"""Does a verdict stand under other analyses that could as well have been made?

Every analysis of a multiverse (Steegen et al. 2016, doi:10.1177/1745691616658637) is judged by the claim's own rule.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from ..measure.evidence import Cell
from .claims import Claim, find_claim
from .verdicts import Verdict

ROBUST = 0.9
"""Share of the other analyses that must agree for a verdict to be called robust."""


def outcomes(claim: Claim, cells: Sequence[Cell]) -> list[Verdict]:
    """The verdict of each analysis.

    Raises:
        RuleError: one lacks something that the rule asks for.
    """
    return [claim.rule.verdict(own.evidence, claim.smallest if own.smallest is None else own.smallest) for own in cells]


def by_choice(found: Mapping[str, Sequence[Cell]]) -> pd.DataFrame:
    """How many analyses of each claim come to which verdict, by what they chose: `claim`, `choice`, `of` (what there
    was to choose), `analyses`, and a column a verdict."""
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    for claim, cells in found.items():
        for own, verdict in zip(cells, outcomes(find_claim(claim), cells), strict=True):
            for name, value in {"": "all", **own.choices}.items():
                rows.setdefault((claim, name, str(value)), Counter())[str(verdict)] += 1
    names = [str(one) for one in Verdict if one != Verdict.NOT_TESTABLE]
    table = pd.DataFrame(
        [
            {"claim": c, "of": of, "choice": v, "analyses": n.total()} | {k: n[k] for k in names}
            for (c, of, v), n in rows.items()
        ]
    )
    return table.sort_values(["claim", "of"], kind="stable", ignore_index=True)


def agreement(counts: Mapping[str, int], verdict: str) -> str:
    """How many analyses come to the same verdict, in words; empty where there are none."""
    if not (every := sum(counts.values())):
        return ""
    share = counts.get(verdict, 0) / every
    others = ", ".join(f"{n} {name}" for name, n in counts.items() if n and name != verdict)
    return f"{'robust' if share >= ROBUST else 'not robust'}: {share:.0%} of {every} other analyses agree" + (
        f" ({others})" if others else ""
    )
