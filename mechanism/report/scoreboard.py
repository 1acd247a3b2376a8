"""Claims and what became of them, as rows and as the book's pages show them."""

import html
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from ..measure.evidence import Evidence
from .amendments import Amendment, load_amendments
from .claims import Claim, ClaimError, load_claims, load_sources, load_testbeds
from .files import HOME
from .multiverse import agreement
from .record import claim_anchor, evidence_of, read_records
from .verdicts import Verdict

UNDECIDED = "undecided"
_HEADER = ("Id", "Claim", "Verdict", "Source says", "Here [95 % interval]", "Held against")


def claim_rows(folder: Path | None = None) -> list[dict[str, Any]]:
    """One mapping per claim, in the file's order: `id`, `source` (arXiv id or title), `statement`, `source_figure`,
    `effect`, `unit`, `resampled`, `smallest`, `because`, `null_name`, `test`, `criterion`, `rule`, `digest` (hash of
    what decides), `scale`, `label` (the verdict as readers see it), `notebook`, `amendments` (in words), `testbeds`
    (the same of each testbed on which it was judged, with its title as `testbed`), and from its record `verdict`,
    `estimate`, `interval`, `n`, `null`, `p`, `note`, each None while it is undecided, and `deciding_n`; see
    `Rule.deciding_n`; and `analyses`, see `agreement`.

    Args:
        folder: results folder; see `record`.

    Raises:
        ClaimError: a record was judged by another rule than the claim's of today.
        AmendmentError: see `load_amendments`.
    """
    records, claims = read_records(folder), load_claims()
    ledger = load_amendments(claims)
    rows = {claim.id: _row(claim, records.get(claim.id, {}), ledger.get(claim.id, [])) for claim in claims.values()}
    for name, testbed in load_testbeds().items():
        for claim_id, record in read_records(folder, name).items():
            own = _row(claims[claim_id].on(testbed), record, [])
            rows[claim_id]["testbeds"].append({**own, "testbed": testbed.title})
    return list(rows.values())


def _amended() -> str:
    """How many claims were amended after their first record, as a sentence."""
    claims = load_claims()
    ledger = load_amendments(claims)
    turned = sum(any(a.verdicts["old"] != a.verdicts["new"] for a in own) for own in ledger.values())
    return (
        f"Of {len(claims)} claims {len(ledger)} had their test, criterion or rule amended after a first record, in "
        f"{sum(map(len, ledger.values()))} steps; with {turned} of them the verdict, or its word, changed. Each "
        "amendment stands with its claim: what it was, what it is, why, and the verdict under both."
    )


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims have which verdict, `undecided` last; verdicts that nothing has are there with 0."""
    found = Counter(row["verdict"] or UNDECIDED for row in rows)
    return {name: found[name] for name in (*map(str, Verdict), UNDECIDED)}


def scoreboard_markdown(page: str, folder: Path | None = None) -> str:
    """The front page's table: verdicts by source. `page` is the document it stands on, such as `index`."""
    rows = claim_rows(folder)
    names = [name for name, count in counts(rows).items() if count or name != UNDECIDED]
    lines = [_line(["Source", *(name.capitalize() for name in names)]), _line(["---"] + ["--:"] * len(names))]
    for source in load_sources().values():
        own = counts(row for row in rows if row["id"].startswith(source.letter))
        link = _link(f"claims-{source.letter}", source.title, page)
        lines.append(_line([f"**{source.letter}** {link}", *(str(own[name]) for name in names)]))
    return "\n".join([*lines, "", _amended()])


def on_testbeds_markdown(page: str, folder: Path | None = None, single: bool = False) -> str:
    """Claims that are judged on other models too: their verdicts side by side, and how many disagree; arguments as in
    `claims_markdown`. Empty where there are none."""
    rows = [row for row in claim_rows(folder) if row["testbeds"]]
    if not rows:
        return ""
    titles = list(dict.fromkeys(own["testbed"] for row in rows for own in row["testbeds"]))
    lines = [_line(["Id", "Claim", "Natural languages", *(title.capitalize() for title in titles)])]
    lines.append(_line(["---"] * (3 + len(titles))))
    for row in rows:
        others = {own["testbed"]: _lines(badge(own, page, single), estimate_text(own)) for own in row["testbeds"]}
        own = _lines(badge(row, page, single), estimate_text(row))
        lines.append(_line([f"**{row['id']}**", row["statement"], own, *(others.get(title, "") for title in titles)]))
    apart = [row["id"] for row in rows if any(own["verdict"] != row["verdict"] for own in row["testbeds"])]
    told = f"They disagree on {len(apart)} of {len(rows)} claims{': ' + ', '.join(apart) if apart else ''}."
    return "\n".join([*lines, "", told])


def claims_markdown(letter: str, page: str, folder: Path | None = None, single: bool = False) -> str:
    """A source's claims: a table of verdicts, then test and criterion of each.

    Args:
        letter: of the source.
        page: the document it stands on; folder: results folder; single: whether all pages are one, as in print.
    """
    rows = [row for row in claim_rows(folder) if row["id"].startswith(letter)]
    details = ["", f":::{{dropdown}} How each was tested ({rows[0]['id']} to {rows[-1]['id']})", ""]
    return "\n".join([_table(rows, page, single), *details, *(line for row in rows for line in _detail(row)), ":::"])


def sources_markdown(page: str, folder: Path | None = None, single: bool = False) -> str:
    """A section for each source with its claims; arguments as in `claims_markdown`."""
    parts = []
    for source in load_sources().values():
        head = f"(claims-{source.letter})=\n## {source.letter}. {source.name}"
        parts += [
            head,
            f"From {{cite:t}}`{source.key}`. {source.about}".rstrip(),
            claims_markdown(source.letter, page, folder, single),
        ]
    return "\n\n".join(parts)


def board_markdown(page: str, folder: Path | None = None, single: bool = False) -> str:
    """Every claim in one table; arguments as in `claims_markdown`."""
    return _table(claim_rows(folder), page, single)


def _table(rows: Iterable[Mapping[str, Any]], page: str, single: bool) -> str:
    head = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    return "\n".join([*head, *(_line(_cells(row, page, single)) for row in rows)])


def _row(claim: Claim, record: Mapping[str, Any], amendments: list[Amendment]) -> dict[str, Any]:
    if record and record.get("digest") != claim.digest:
        again = f"mechanism notebooks --only {claim.notebook}"
        raise ClaimError(f"the record of claim {claim.id} was judged by another rule than today's: run `{again}`")
    verdict = Verdict(record["verdict"]) if record.get("verdict") else None
    found = evidence_of(record)
    doubt = found is not None and verdict == Verdict.INCONCLUSIVE
    return {
        "id": claim.id,
        "source": claim.source.arxiv or claim.source.title,
        "statement": claim.statement,
        "source_figure": claim.source_figure,
        **{key: getattr(claim, key) for key in ("effect", "unit", "resampled", "smallest", "because")},
        "null_name": claim.against,
        "test": claim.test,
        "criterion": claim.criterion,
        "rule": str(claim.rule),
        "digest": claim.digest,
        "scale": claim.scale,
        "label": claim.label(verdict),
        **{key: record.get(key) for key in ("verdict", "estimate", "interval", "n", "null", "p", "note")},
        "analyses": agreement(record.get("analyses", {}), str(verdict)),
        "deciding_n": claim.rule.deciding_n(found, claim.smallest) if found and doubt else None,
        "amendments": [_history(one, found) for one in amendments],
        "notebook": record.get("notebook") or claim.notebook,
        "testbeds": [],
    }


def _history(one: Amendment, found: Evidence | None) -> str:
    """An amendment as a sentence or two, with the verdict of the old rule on what is recorded now."""
    commit = f" (commit {one.commit})" if one.commit else ""
    told = [
        f"{one.date}{commit}, {', '.join(one.changed)}.",
        f"Before: {one.old} Since: {one.new} Why: {one.reason}",
        f"The verdict went from {one.verdicts['old']} to {one.verdicts['new']}.",
    ]
    if one.old_rule and one.same_estimate:
        told.append(f"Today's record, under the old rule: {one.old_verdict(found)}.")
    return " ".join(told)


def _cells(row: Mapping[str, Any], page: str, single: bool) -> list[str]:
    elsewhere = [f"on {own['testbed']}: {badge(own, page, single)}" for own in row["testbeds"]]
    verdict = _lines(badge(row, page, single), needed(row), row["analyses"].split(" (")[0], *elsewhere)
    head = [f"**{row['id']}**", row["statement"], verdict, row["source_figure"]]
    here = _lines(
        estimate_text(row), _size(row), *(f"on {own['testbed']}: {estimate_text(own)}" for own in row["testbeds"])
    )
    return [*head, here, _lines(*_against(row))]


def brief(row: Mapping[str, Any]) -> dict[str, Any]:
    """A claim in a line of a terminal, its numbers rounded."""
    found = "\n".join(filter(None, (estimate_text(row).replace("\\", ""), _size(row))))
    return {
        "id": row["id"], "claim": row["statement"], "verdict": row["verdict"] or UNDECIDED, "here": found,
        "held against": "\n".join(_against(row)),
    }  # fmt: skip


def needed(row: Mapping[str, Any]) -> str:
    """What would decide an inconclusive claim, at the same estimate; nothing of any other."""
    if row["verdict"] != Verdict.INCONCLUSIVE:
        return ""
    unit = row["resampled"].split(",")[0]
    return f"about {row['deciding_n']:,} {unit} would tell" if row["deciding_n"] else f"more {unit} would not tell"


def _size(row: Mapping[str, Any]) -> str:
    return f"n: {row['n']:,} {row['resampled']}" if row["n"] else ""


def _against(row: Mapping[str, Any]) -> tuple[str, str]:
    null = row["null_name"] + (f": {row['null']:.3g}" if row["null"] is not None else "")
    return f"smallest effect of interest {row['smallest']:.3g}", f"null: {null}"


def _lines(*parts: str) -> str:
    return "<br>".join(filter(None, parts))


def estimate_text(row: Mapping[str, Any]) -> str:
    """`-0.107 [-0.368, 0.155] share`, its brackets escaped for Markdown; the note where there is no estimate."""
    if row["estimate"] is None:
        return row["note"] or ""
    low, high = row["interval"]
    bounds = "exact" if low == high == row["estimate"] else f"\\[{low:.3g}, {high:.3g}\\]"
    return f"{row['estimate']:.3g} {bounds} {row['unit'] or ''}".strip()


def badge(row: Mapping[str, Any], page: str, single: bool) -> str:
    """The verdict, as a link to the cell that gave it; no link while it is undecided."""
    if not row["verdict"]:
        return f"[{row['label']}]{{.verdict .verdict-{UNDECIDED}}}"
    kind = Verdict(row["verdict"]).name.lower().replace("_", "-")
    path = "" if single else os.path.relpath(f"notebooks/{row['notebook']}.html", Path(page).parent)
    place = f'href="{path}#{claim_anchor(row["id"])}"'
    return f'<a class="verdict verdict-{kind}" {place}>{html.escape(row["label"])}</a>'


def _detail(row: Mapping[str, Any]) -> list[str]:
    note = [f"  *Note.* {row['note'].rstrip('.')}."] if row["verdict"] and row["note"] else []
    return [
        f"**{row['id']}**",
        f": *Effect.* {row['effect']} Unit: {row['unit']}. Resampled: {row['resampled']}. Null: {row['null_name']}.",
        f"  *Smallest effect of interest.* {row['smallest']:g}: {row['because']}",
        f"  *Test.* {row['test']}",
        f"  *Criterion.* {row['criterion']} Rule: `{row['rule']}`; else inconclusive.",
        *note,
        *([f"  *Other analyses.* {row['analyses'].capitalize()}."] if row["analyses"] else []),
        *(
            f"  *On {own['testbed']}.* {own['test']} Resampled: {own['resampled']}. {own['label']}: "
            f"{estimate_text(own)}, {_lines(*_against(own)).replace('<br>', ', ')}."
            for own in row["testbeds"]
        ),
        *(f"  *Amended.* {history}" for history in row["amendments"]),
        f"  *Wrong?* [Report a problem with this claim]({_complaint(row)}).",
        "",
    ]


def _complaint(row: Mapping[str, Any]) -> str:
    """The form for a problem with a claim, with what it is about filled in."""
    known = {"claim": row["id"], "record": f"{row['label']}, rule {row['digest']}", "title": f"[claim] {row['id']}"}
    return f"{HOME}/issues/new?{urlencode({'template': 'claim.yml', **known})}"


def _link(label: str, text: str, page: str) -> str:
    return f"[{text}](#{label})" if page == "claims" else f"{{ref}}`{text} <{label}>`"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
