"""Chart of estimates with intervals, a row each."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import DASHED, MANY, Number, Size, figure_of, ordered, palette, put_legend, start, text
from .figures import PALETTE, language_colours
from .tables import estimates


def forest(
    table: pd.DataFrame, *, by: str = "", colours: Mapping[Any, str] | None = None, points: pd.DataFrame | None = None,
    cross: bool = False, null: bool = False, reference: Number | None = None, legend: str = "auto",
    axis: Axes | None = None, size: Size | None = None, **properties: Any,
) -> Figure:  # fmt: skip
    """Estimates with their intervals, a row for each name of the index, the first on top.

    Args:
        by: column whose values have a colour each; rows of one name stand side by side.
        colours: by value of that column, or by name.
        points: grey points of a row, by its name; the name of their columns stands in the legend.
        cross: they are crosses.
        null: mark what the column `null` says with black ticks.
        reference: value of a dashed line upright.

    Raises:
        ValueError: there is nothing to draw, or the table lacks an estimate or its bounds.
    """
    known = table.assign(estimate=estimates(table)).dropna(subset="estimate")
    points = pd.DataFrame() if points is None else points.dropna(how="all")
    present = {*known.index, *points.index}
    names = ordered((name for name in table.index if name in present), table.index.name)
    axis = start(axis, size or (6.8, 1.0 + 0.33 * len(names)), names)
    groups = dict(list(known.groupby(by, sort=False))) if by else {"ours": known}
    shifts = np.linspace(-0.15, 0.15, len(groups)) if known.index.has_duplicates else np.zeros(len(groups))
    shades = dict(zip(groups, palette(len(groups)), strict=True)) if by else _row_colours(names, table.index.name)
    shades |= dict(colours or {})
    for (group, own), shift in zip(groups.items(), shifts, strict=True):
        for name, row in own.iterrows():
            place, colour = names.index(name) + shift, shades[group if by else name]
            axis.plot([row["low"], row["high"]], [place] * 2, color=colour)
            axis.plot(row["estimate"], place, "o", color=colour, label=str(group))
            if null:
                axis.plot(row["null"], place, "|", color="black", markersize=14)
    for name, row in points.iterrows():
        some = row.dropna()
        spread = np.linspace(-0.15, 0.15, len(some)) if len(some) > MANY else np.zeros(len(some))
        look: dict[str, Any] = {"linestyle": "", "color": "#808080", "markersize": 5, "label": points.columns.name}
        axis.plot(some, names.index(name) + 0.3 + spread, "x" if cross else "o", **look)
    if reference is not None:
        axis.axvline(reference, **DASHED)
    axis.set_yticks(range(len(names)), [text(name) for name in names])
    axis.set(**{"ylim": (len(names) - 0.4, -0.6), **properties})
    put_legend(axis, legend if by or points.columns.name else "")
    return figure_of(axis)


def _row_colours(names: list[Any], level: Hashable) -> dict[Any, str]:
    return language_colours(names) if level == "lang" else dict.fromkeys(names, PALETTE[0])
