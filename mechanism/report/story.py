"""The front page's story: the verdicts as a bar, and each source with what became of its claims and their effects."""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from . import charts
from .claims import load_claims, load_sources
from .figures import use_style
from .scoreboard import badge, claim_rows, counts, estimate_text
from .verdicts import Verdict

COLOURS = {
    Verdict.REPLICATED: "#009E73",
    Verdict.PARTLY: "#E69F00",
    Verdict.REFUTED: "#D55E00",
    Verdict.INCONCLUSIVE: "#0072B2",
}
_RATIOS = ("ratio", "factor", "times")  # units of estimates that are 1 where there is no effect
_FAR = 4.0  # effects are drawn as far as this many times the smallest effect of interest


def bar_html(folder: Path | None = None) -> str:
    """Claims by verdict as a bar, and one more for each testbed on which some were judged; see `claim_rows`."""
    rows = claim_rows(folder)
    beds = dict.fromkeys(own["testbed"] for row in rows for own in row["testbeds"])
    shown = {"natural languages": rows}
    shown |= {bed: [own for row in rows for own in row["testbeds"] if own["testbed"] == bed] for bed in beds}
    return "\n".join(_bar(name if len(shown) > 1 else "", own) for name, own in shown.items())


def _bar(name: str, rows: Iterable[Mapping[str, Any]]) -> str:
    found = {verdict: count for verdict, count in counts(rows).items() if count}
    parts = "".join(
        f'<span class="verdict-{verdict.split(" here")[0].replace(" ", "-")}" style="flex-grow:{count}">'
        f"<b>{count}</b> {html.escape(verdict)}</span>"
        for verdict, count in found.items()
    )
    title = f"{sum(found.values())} claims" + (f" on {name}" if name else "")
    return f'<div class="bar"><p>{html.escape(title)}</p><div>{parts}</div></div>'


def source_markdown(letter: str, page: str, folder: Path | None = None, single: bool = False) -> str:
    """What a source asks, what became of its claims, and those that stand for it; arguments as in `claims_markdown`."""
    source = load_sources()[letter]
    rows = {row["id"]: row for row in claim_rows(folder) if row["id"].startswith(letter)}
    found = [f"{count} {verdict}" for verdict, count in counts(rows.values()).items() if count]
    lines = [
        f"**{source.name}** {{cite:p}}`{source.key}`. {source.asks} Of its {len(rows)} claims: {', '.join(found)}."
    ]
    for name in source.headline:
        row = rows[name]
        lines.append(f"- {row['statement']} {badge(row, page, single)} {estimate_text(row)}")
    pages = dict.fromkeys(claim.notebook for claim in load_claims().values() if claim.id.startswith(letter))
    links = ", ".join(f"[](/notebooks/{name}.ipynb)" for name in pages)
    return "\n".join([*lines, "", f"Read: {links}."])


def effects(letter: str, folder: Path | None = None) -> pd.DataFrame:
    """Estimated effects of a source's claims with their intervals, over the smallest effect of interest: at 1 and
    beyond an effect counts, at 0 there is none (where the estimate is a ratio, that is its excess over 1). Counts and
    proofs are left out. `bound` claims, which an interval above 1 refutes, hold below 1."""
    rows, claims = {}, load_claims()
    for row in claim_rows(folder):
        exact = row["estimate"] is None or row["interval"][0] == row["interval"][1]
        if not row["id"].startswith(letter) or exact or not row["smallest"]:
            continue
        nothing = 1.0 if row["unit"].split()[0] in _RATIOS else 0.0
        estimate, *ends = ((x - nothing) / (row["smallest"] - nothing) for x in (row["estimate"], *row["interval"]))
        refuted = claims[row["id"]].rule.refuted
        bound = row["smallest"] > 0 and any((c.left, c.right) == ("interval.low", "smallest") for c in refuted)
        rows[row["id"]] = {
            "estimate": estimate, "low": min(ends), "high": max(ends), "verdict": row["verdict"], "bound": bound,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def effects_figure(letter: str, folder: Path | None = None) -> tuple[Figure, str, str]:
    """`effects` as a figure, what it shows in words, and its caption; effects beyond four times the smallest are drawn
    there."""
    table = effects(letter, folder)
    drawn = table.assign(**{name: table[name].clip(-_FAR, _FAR) for name in ("estimate", "low", "high")})
    drawn.index = pd.Index([f"{name}, at most" if own else name for name, own in table["bound"].items()], name="claim")
    known = list(dict.fromkeys(drawn["verdict"]))
    with plt.rc_context():
        use_style()
        figure = charts.forest(
            drawn, by="verdict", colours={name: COLOURS[Verdict(name)] for name in known}, reference=0,
            legend="outside", size=(6.8, 1.1 + 0.36 * len(drawn)), xlabel="effect, in smallest effects of interest",
            xlim=(-_FAR - 0.2, _FAR + 0.2),
        )  # fmt: skip
        figure.axes[0].axvline(1, color="grey", linewidth=1)
    told = "; ".join(f"{name} {row['estimate']:.1f}, {row['verdict']}" for name, row in table.iterrows())
    alt = f"Effects over the smallest effect of interest, with 95 % intervals, by claim: {told}."
    there = table[~table["bound"]]
    reach = int((there["estimate"] >= 1).sum())
    caption = (
        f"Effects of the claims {letter} with 95 % intervals, over the smallest effect that counts: at and beyond 1 "
        f"(grey line) an effect counts, at 0 there is none. {reach} of {len(there)} estimates reach 1; counts and "
        f"proofs are left out, and what lies beyond {_FAR:g} is drawn there."
    )
    if table["bound"].any():
        caption += " *At most*: the claim is that the effect stays below 1."
    return figure, alt, caption
