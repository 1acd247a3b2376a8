"""Charts of points: one for each row of a table, or a named one for each language."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import DASHED, Number, Size, figure_of, name_points, need, palette, put_legend, start
from .figures import PALETTE, SEQUENTIAL, language_colours


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
    axis = start(axis, size, table)
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
    axis = start(axis, size, table)
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
