"""Tables of the report as a page shows them."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from IPython.display import HTML

ESTIMATES = ("estimate", "value", "gain", "mean")
"""Names of the column between `low` and `high`, the first that a table has."""


def estimates(table: pd.DataFrame) -> pd.Series:
    """The estimates of a table with intervals.

    Raises:
        ValueError: it lacks them, or `low` or `high`.
    """
    found = [name for name in ESTIMATES if name in table]
    if not found or not {"low", "high"} <= set(table):
        had = ", ".join(map(str, table.columns)) or "no columns"
        raise ValueError(f"an interval needs columns estimate, low and high; the table has {had}")
    return table[found[0]]


def interval_text(table: pd.DataFrame, digits: int = 2) -> pd.Series:
    """`0.52 [0.44, 0.60]` from the `estimates`, `low` and `high`; `0.52` without an interval, empty without a value.

    Raises:
        ValueError: see `estimates`.
    """
    value = estimates(table)
    parts = [one.map(f"{{:.{digits}f}}".format).astype(object) for one in (value, table["low"], table["high"])]
    text = (parts[0] + " [" + parts[1] + ", " + parts[2] + "]").where(table["low"].notna(), parts[0])
    return text.where(value.notna(), "")


def with_intervals(table: pd.DataFrame, digits: int = 2) -> pd.DataFrame:
    """Every number `x` of which there are `x, low` and `x, high` in one column, as `interval_text`."""
    bounded = [name for name in table if {f"{name}, low", f"{name}, high"} <= set(table)]
    shown = table.drop(columns=[f"{name}, {end}" for name in bounded for end in ("low", "high")])
    for name in bounded:
        own = {"estimate": table[name], "low": table[f"{name}, low"], "high": table[f"{name}, high"]}
        shown[name] = interval_text(pd.DataFrame(own), digits)
    return shown


def page_table(table: pd.DataFrame, digits: int = 2, index: bool = True) -> HTML:
    """A table for the page: numbers to so many digits, nothing where there is none; and a link to all their digits."""
    from .behind import csv_link, flat

    shown = table.astype(object).where(table.notna(), "")  # na_rep leaves <NA> of nullable integers
    shown = shown.rename(columns=_words).rename_axis(index=_words, columns=_words)
    told = shown.to_html(classes="dataframe", float_format=f"{{:.{digits}f}}".format, index=index)
    return HTML(told + csv_link(flat(table if index else table.reset_index(drop=True))))


def _words(name: Any) -> Any:
    """A name as readers see it."""
    return name.replace("_", " ") if isinstance(name, str) else name


def listing(facts: Mapping[str, Any]) -> HTML:
    """Names and what they are, a row each, as they stand."""
    return HTML(pd.Series(facts, name="value").to_frame().to_html(header=False, classes="dataframe"))


def markdown_table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A table in Markdown, its cells as text on one line."""
    header = list(header)
    lines = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
