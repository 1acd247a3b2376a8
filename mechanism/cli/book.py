"""Commands on the report: `mechanism claims`, `notebooks`, `book`, `check` and `pdf`."""

from collections.abc import Mapping
from typing import Annotated

import typer

from .console import Json, out, print_rows

Only = Annotated[list[str] | None, typer.Option("--only", help="Notebook to run (its name, or a prefix); repeatable.")]
Force = Annotated[bool, typer.Option("--force", help="Run also what is unchanged.")]
Stale = Annotated[bool, typer.Option("--stale", help="Only name those that would be executed.")]
Parameter = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", help="NAME=VALUE for the notebooks that declare it; repeatable."),
]

MOST = 4  # notebooks side by side: each holds a model, some 2 GB


def claims(json_: Json = False) -> None:
    """List every claim with its verdict, what it rests on and what it is held against."""
    from ..report.scoreboard import brief, claim_rows

    rows = claim_rows()
    print_rows(rows, [brief(row) for row in rows], json_, "Claims")


def _parameters(pairs: list[str] | None) -> Mapping[str, str]:
    for pair in pairs or ():
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE")
    return dict(pair.split("=", 1) for pair in pairs or ())


def notebooks(only: Only = None, force: Force = False, parameter: Parameter = None, stale: Stale = False) -> None:
    """Execute the notebooks whose inputs changed."""
    from joblib import cpu_count

    from ..report import build

    wanted, given = tuple(only or ()), _parameters(parameter)
    if stale:
        for name in build.stale(wanted, given):
            out.print(name)
        return
    several = 1 if "model" in given else min(cpu_count(), MOST)  # another model may fill the memory by itself
    build.build_notebooks(only=wanted, force=force, parameters=given, side_by_side=several)


def book(only: Only = None, force: Force = False, parameter: Parameter = None) -> None:
    """Execute the notebooks and build the site, warnings as errors."""
    from ..report.book import build_book

    notebooks(only, force, parameter)
    site = build_book(force)
    out.print(f"{site}: {site.folder / 'index.html'}", soft_wrap=True)


def check() -> None:
    """Check by content hash that the built site shows what the sources give, and the outputs that the build made."""
    from ..report.published import altered, outdated

    if told := [*altered(), *outdated()]:
        raise ValueError("the site is stale, build it again with `mechanism book`:\n" + "\n".join(told))
    out.print("the site is fresh: every page follows from its sources")


def pdf() -> None:
    """Print the built book to PDF (needs Chromium)."""
    from ..report.book import build_pdf

    out.print(str(build_pdf()))
