"""Claims and what became of them, as rows and as the book's pages show them."""

import html
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .claims import Claim, load_claims, load_sources
from .record import claim_anchor, read_records
from .verdicts import Verdict

UNDECIDED = "undecided"
_HEADER = ("Id", "Claim", "Source says", "Here [95 % interval]", "Null", "n", "Verdict")


def claim_rows(folder: Path | None = None) -> list[dict[str, Any]]:
    """One mapping per claim, in the file's order: `id`, `source` (arXiv id or title), `statement`, `source_figure`,
    `test`, `criterion`, `rule`, `scale`, `label` (the verdict as readers see it), `notebook`, and from its record
    `verdict`, `estimate`, `interval`, `n`, `null`, `p`, `unit`, `note`, each None while it is undecided.

    Args:
        folder: results folder; see `record`.
    """
    records = read_records(folder)
    return [_row(claim, records.get(claim.id, {})) for claim in load_claims().values()]


def counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many claims have which verdict, `undecided` last; verdicts that nothing has are there with 0."""
    found = Counter(row["verdict"] or UNDECIDED for row in rows)
    return {name: found[name] for name in (*map(str, Verdict), UNDECIDED)}


def scoreboard_markdown(page: str, folder: Path | None = None) -> str:
    """The front page's table: verdicts by source. `page` is the document it stands on, such as `index`."""
    rows = claim_rows(folder)
    names = list(counts(rows))
    lines = [_line(["Source", *(name.capitalize() for name in names)]), _line(["---"] + ["--:"] * len(names))]
    for source in load_sources().values():
        own = counts(row for row in rows if row["id"].startswith(source.letter))
        link = _link(f"claims-{source.letter}", source.title, page)
        lines.append(_line([f"**{source.letter}** {link}", *map(str, own.values())]))
    return "\n".join(lines)


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
    head = [_line(_HEADER), _line(["---", "---", "---", "---", "--:", "--:", "---"])]
    return "\n".join([*head, *(_line(_cells(row, page, single)) for row in rows)])


def _row(claim: Claim, record: Mapping[str, Any]) -> dict[str, Any]:
    verdict = Verdict(record["verdict"]) if record.get("verdict") else None
    return {
        "id": claim.id,
        "source": claim.source.arxiv or claim.source.title,
        "statement": claim.statement,
        "source_figure": claim.source_figure,
        "test": claim.test,
        "criterion": claim.criterion,
        "rule": str(claim.rule) if claim.rule else None,
        "scale": claim.scale,
        "label": claim.label(verdict),
        **{key: record.get(key) for key in ("verdict", "estimate", "interval", "n", "null", "p", "unit", "note")},
        "notebook": record.get("notebook") or claim.notebook,
    }


def _cells(row: Mapping[str, Any], page: str, single: bool) -> list[str]:
    null = f"{row['null']:.3g}" if row["null"] is not None else ""
    size = f"{row['n']:,}" if row["n"] else ""
    head = [f"**{row['id']}**", row["statement"], row["source_figure"]]
    return [*head, _estimate(row), null, size, _badge(row, page, single)]


def _estimate(row: Mapping[str, Any]) -> str:
    if row["estimate"] is None:
        return row["note"] or ""
    low, high = row["interval"]
    bounds = "exact" if low == high == row["estimate"] else f"\\[{low:.3g}, {high:.3g}\\]"
    return f"{row['estimate']:.3g} {bounds} {row['unit'] or ''}".strip()


def _badge(row: Mapping[str, Any], page: str, single: bool) -> str:
    """The verdict, as a link to the cell that gave it; no link while it is undecided."""
    if not row["verdict"]:
        return f"[{row['label']}]{{.verdict .verdict-{UNDECIDED}}}"
    kind = Verdict(row["verdict"]).name.lower().replace("_", "-")
    path = "" if single else os.path.relpath(f"notebooks/{row['notebook']}.html", Path(page).parent)
    place = f'href="{path}#{claim_anchor(row["id"])}"'
    return f'<a class="verdict verdict-{kind}" {place}>{html.escape(row["label"])}</a>'


def _detail(row: Mapping[str, Any]) -> list[str]:
    rule = f"Rule: `{row['rule']}`." if row["rule"] else "No rule yet; it is fixed before the run."
    note = [f"  *Note.* {row['note'].rstrip('.')}."] if row["verdict"] and row["note"] else []
    return [f"**{row['id']}**", f": *Test.* {row['test']}", f"  *Criterion.* {row['criterion']} {rule}", *note, ""]


def _link(label: str, text: str, page: str) -> str:
    return f"[{text}](#{label})" if page == "claims" else f"{{ref}}`{text} <{label}>`"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
