"""What is guaranteed where: families by contracts, a mark for each experts implementation and number format."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from itertools import groupby
from typing import Any

from ..corpus.library import DATA
from ..trace.survey import DTYPES, IMPLEMENTATIONS, OUTCOMES

RECORD, COMMAND = DATA / "baselines" / "guarantees.json", "mechanism contracts --all --write"
MARKS = {"observed": "●", "refused": "○", "not applicable": "·", "silently wrong": "✗"}
Cells = dict[tuple[str, str], str]
"""Outcomes by number format and implementation."""


def write(found: Mapping[str, Any]) -> None:
    """Keep a survey, a line a row."""
    head = {key: value for key, value in found.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row, sort_keys=True) for row in found["rows"])
    RECORD.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{rows}\n]}}\n', "utf-8")


def read() -> dict[str, Any]:
    """The recorded survey."""
    return json.loads(RECORD.read_text("utf-8"))


def counted(row: Mapping[str, Any]) -> str:
    """`17 observed, 2 refused` of a row."""
    counts = Counter(row["outcomes"].values())
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES.values() if counts[outcome])


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows for a terminal, one a family: how often each outcome was met, and the first reason, what is wrong first."""
    shown = []
    for family, rows in groupby(found["rows"], key=lambda row: row["family"]):
        own = list(rows)
        counts = Counter(outcome for row in own for outcome in row["outcomes"].values())
        why = [
            f"{contract}: {row['reasons'][contract]}"
            for wanted in ("silently wrong", "refused", "not applicable")
            for row in own
            for contract, outcome in row["outcomes"].items()
            if outcome == wanted
        ]
        shown.append({"family": family, **{o: counts[o] for o in OUTCOMES.values()}, "reason": (why or [""])[0]})
    return shown


def _families(found: Mapping[str, Any]) -> dict[str, dict[str, Cells]]:
    """Outcomes by family and contract. What a family has one implementation for is shown as `eager`."""
    table: dict[str, dict[str, Cells]] = {}
    for row in found["rows"]:
        name = IMPLEMENTATIONS[0] if row["implementation"] == "own" else row["implementation"]
        for contract, outcome in row["outcomes"].items():
            table.setdefault(row["family"], {}).setdefault(contract, {})[row["dtype"], name] = outcome
    return table


def _cell(cells: Cells) -> str:
    """A line of marks a number format, a mark an implementation."""
    lines, told = [], []
    for dtype in DTYPES:
        own = [cells.get((dtype, name), "not applicable") for name in IMPLEMENTATIONS]
        lines.append("".join(MARKS[outcome] for outcome in own))
        told += [f"{dtype}, {name}: {outcome}" for name, outcome in zip(IMPLEMENTATIONS, own, strict=True)]
    return f'<td title="{"; ".join(told)}">{"<br>".join(lines)}</td>'


def map_html(found: Mapping[str, Any]) -> str:
    """Families that fare alike in one row, most first; then every reason, family by family."""
    alike: dict[str, list[str]] = {}
    for family, outcomes in _families(found).items():
        alike.setdefault("".join(_cell(outcomes[contract]) for contract in found["contracts"]), []).append(family)
    names = "".join(f"<th><span>{contract.replace('_', ' ')}</span></th>" for contract in found["contracts"])
    rows = "".join(
        f"<tr><th>{_named(families)}</th>{cells}</tr>"
        for cells, families in sorted(alike.items(), key=lambda pair: -len(pair[1]))
    )
    head = f"<thead><tr><th>families</th>{names}</tr></thead>"
    table = f'<div class="table-wrapper" tabindex="0"><table class="table">{head}<tbody>{rows}</tbody></table></div>'
    return table + f"<details><summary>Why: every refusal in its own words</summary>{_reasons(found)}</details>"


def _named(families: list[str]) -> str:
    if len(families) < 4:
        return ", ".join(families)
    return f"<details><summary>{len(families)} families</summary>{', '.join(families)}</details>"


def _reasons(found: Mapping[str, Any]) -> str:
    """A list of the families that have something to say, each with its sentences and the contracts they are about."""
    items = []
    for family, rows in groupby(found["rows"], key=lambda row: row["family"]):
        told = dict(_told(rows))
        if told:
            said = "".join(f"<li>{escape(why)} ({', '.join(names)})</li>" for why, names in told.items())
            items.append(f"<li>{family}<ul>{said}</ul></li>")
    return f"<ul>{''.join(items)}</ul>"


def _told(rows: Iterator[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    about: dict[str, dict[str, None]] = {}
    for row in rows:
        for contract, why in row["reasons"].items():
            about.setdefault(why, {})[contract] = None
    for why, names in about.items():
        yield why, [name.replace("_", " ") for name in names]


def map_markdown() -> str:
    """The recorded map, behind what its marks mean and what it was recorded with."""
    found = read()
    counts = Counter(outcome for row in found["rows"] for outcome in row["outcomes"].values())
    marks = ", ".join(f"{mark} {outcome} ({counts[outcome]:,})" for outcome, mark in MARKS.items())
    families = len({row["family"] for row in found["rows"]})
    return (
        f"Recorded {found['date']} with torch {found['torch']} and transformers {found['transformers']} by "
        f"`{COMMAND}`, in {found['seconds'] / 60:.0f} minutes: {families} families, "
        f"{len(found['contracts'])} contracts. In a cell the upper line is float32 and the lower bfloat16; from left "
        f"to right {', '.join(IMPLEMENTATIONS)}. "
        f"{marks}. {', '.join(found['whole'])} are whole models for images and text, given text; "
        f"{', '.join(found['sides'])} are parts of encoder-decoder models.\n\n"
        f"```{{raw}} html\n{map_html(found)}\n```\n"
    )
