"""What commands print with."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

out, err = Console(), Console(stderr=True)

Config = Annotated[str, typer.Option("--config", help="A configuration (.yaml), or the name of a committed one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_table(rows: list[dict], title: str) -> None:
    """Rows with the same keys as a table; where it is too wide, cells go on in the next line: no digit is cut off."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)


def print_bench(found: dict, as_json: bool, title: str) -> None:
    """What a benchmark returned: its cases and their ratio."""
    if as_json:
        out.print_json(json.dumps(found))
    else:
        print_table(found["cases"], title)
        out.print(f"ratio {found['ratio']}")
