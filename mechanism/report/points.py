"""Charts of points: estimates with their intervals, one for each row of a table, or a named one for each language."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import DASHED, MANY, Number, Size, figure_of, name_points, need, ordered, palette, put_legend, start, text
from .figures import PALETTE, SEQUENTIAL, language_colours
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
    axis = start(axis, size or (6.8, 1.0 + 0.33 * len(names)), names, table)
    groups = dict(list(known.groupby(by, sort=False))) if by else {"ours": known}
    shifts = np.linspace(-0.15, 0.15, len(groups)) if known.index.has_duplicates else np.zeros(len(groups))
    if by:
        shades = dict(zip(groups, palette(len(groups)), strict=True))
    else:
        shades = language_colours(names) if table.index.name == "lang" else dict.fromkeys(names, PALETTE[0])
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


def scatter(
    table: pd.DataFrame, x: str, y: str, *, by: str, ring: str = "", legend: str = "auto",
    axis: Axes | None = None, size: Size = (5.6, 4.2), **properties: Any,
) -> Figure:  # fmt: skip
    """A point for each row, of two columns; a third one colours them, numbers with a bar and names with a legend.

    Args:
        ring: column of truth values: points that have a circle around them.

    Raises:
        ValueError: there is nothing to draw, or a column is lacking.
    """
    need(table, (x, y, by, ring))
    axis = start(axis, size, table, table)
    if pd.api.types.is_numeric_dtype(table[by]):
        dots = axis.scatter(table[x], table[y], c=table[by], cmap=SEQUENTIAL, s=24)
        figure_of(axis).colorbar(dots, ax=axis, label=by)
    else:
        for (name, own), colour in zip(table.groupby(by, sort=False), palette(table[by].nunique()), strict=True):
            axis.plot(own[x], own[y], "o", markersize=5, color=colour, label=name)
    if ring:
        own = table[table[ring]]
        axis.scatter(own[x], own[y], s=90, facecolors="none", edgecolors=PALETTE[1], label=ring)
    axis.set(**{"xlabel": x, "ylabel": y, **properties})
    put_legend(axis, legend)
    return figure_of(axis)


def language_scatter(
    table: pd.DataFrame, x: str, y: str, *, other: str = "", marker: str = "s", slope: Number | None = None,
    reference: Number | None = None, axis: Axes | None = None, size: Size = (6.4, 4.4), **properties: Any,
) -> Figure:  # fmt: skip
    """A named point for each language of the index; with columns `low` and `high`, its interval upright. A name stands
    at the side of its point where it covers least.

    Args:
        other: column of truth values: languages that have another marker.
        slope: of a line through the means; reference: value of a dashed line across.

    Raises:
        ValueError: there is nothing to draw, or a column is lacking.
    """
    need(table, (x, y, other))
    table = table.dropna(subset=[x, y])
    axis = start(axis, size, table, table)
    for code, colour in language_colours(table.index).items():
        own = table.loc[code]
        if {"low", "high"} <= set(table):
            axis.plot([own[x]] * 2, [own["low"], own["high"]], color=colour)
        axis.plot(own[x], own[y], marker if other and own[other] else "o", color=colour)
    if slope is not None:
        ends = np.array([table[x].min(), table[x].max()])
        axis.plot(ends, table[y].mean() + slope * (ends - table[x].mean()), color="grey", linewidth=1)
    if reference is not None:
        axis.axhline(reference, **DASHED)
    axis.set(**{"xlabel": x, "ylabel": y, **properties})
    name_points(axis, table[[x, y]])
    return figure_of(axis)
