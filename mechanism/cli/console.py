"""What commands print with."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

out, err = Console(), Console(stderr=True)

Config = Annotated[str, typer.Option("--config", help="A configuration (.yaml), or the name of a committed one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def say(line: str) -> None:
    """Tell what is being done, beside what a command prints."""
    err.print(line, style="dim", markup=False, soft_wrap=True)


def print_table(rows: list[dict], title: str) -> None:
    """Rows with the same keys as a table; where it is too wide, cells go on in the next line: no digit is cut off."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)


def print_rows(found: Any, rows: list[dict], as_json: bool, title: str) -> None:
    """What a command found: as JSON, or as a table of the rows that show it."""
    if as_json:
        out.print_json(json.dumps(found))
    else:
        print_table(rows, title)


def print_frame(table: "pd.DataFrame", as_json: bool, title: str, digits: int = 12) -> None:
    """A table, as JSON or as one with numbers to so many digits, empty where nothing is known."""
    if as_json:
        out.print_json(table.to_json(orient="records"))
    else:
        print_table(table.round(digits).astype(object).where(table.notna(), None).to_dict("records"), title)


def print_bench(found: dict, as_json: bool, title: str) -> None:
    """What a benchmark returned: its cases and their ratio."""
    print_rows(found, found["cases"], as_json, title)
    if not as_json:
        out.print(f"ratio {found['ratio']}")
