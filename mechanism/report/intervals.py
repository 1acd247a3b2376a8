"""Chart of estimates with intervals, a row each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import DASHED, MANY, Number, Size, figure_of, ordered, palette, put_legend, start, text
from .figures import PALETTE, language_colours
from .tables import estimates


@dataclass(frozen=True)
class _Rows:
    """The rows of a forest by name, or its columns if it is upright."""

    axis: Axes
    names: list[Any]
    upright: bool

    def plot(self, values: Iterable[Any], name: Any, shift: Any, *how: str, **look: Any) -> None:
        values = list(values)
        pair = values, np.broadcast_to(self.names.index(name) + shift, len(values))
        self.axis.plot(*(pair[::-1] if self.upright else pair), *how, **look)

    def label(self, reference: Number | None) -> None:
        if reference is not None:
            (self.axis.axhline if self.upright else self.axis.axvline)(reference, **DASHED)
        ticks = range(len(self.names)), [text(name) for name in self.names]
        if self.upright:
            self.axis.set_xticks(*ticks)
        else:
            self.axis.set_yticks(*ticks)
            self.axis.set_ylim(len(self.names) - 0.4, -0.6)


def forest(
    table: pd.DataFrame, *, by: str = "", colours: Mapping[Any, str] | None = None, points: pd.DataFrame | None = None,
    cross: bool = False, null: bool = False, reference: Number | None = None, upright: bool = False,
    legend: str = "auto", axis: Axes | None = None, size: Size | None = None, **properties: Any,
) -> Figure:  # fmt: skip
    """Estimates with their intervals, a row for each name of the index, the first on top.

    Args:
        by: column whose values have a colour each; rows of one name stand side by side.
        colours: by value of that column, or by name.
        points: grey points of a row, by its name; the name of their columns stands in the legend.
        cross: they are crosses.
        null: mark what the column `null` says with black ticks.
        reference: value of a dashed line.
        upright: intervals stand upright, beside one another.

    Raises:
        ValueError: there is nothing to draw, or the table lacks an estimate or its bounds.
    """
    known = table.assign(estimate=estimates(table)).dropna(subset="estimate")
    points = pd.DataFrame() if points is None else points.dropna(how="all")
    present = {*known.index, *points.index}
    names = ordered((name for name in table.index if name in present), table.index.name)
    axis = start(axis, size or ((6.4, 4.0) if upright else (6.8, 1.0 + 0.33 * len(names))), names)
    rows = _Rows(axis, names, upright)
    groups = dict(list(known.groupby(by, sort=False))) if by else {"": known}
    colours = _row_colours(names, table.index.name, colours) if not by else _group_colours(groups, colours)
    shifts = np.linspace(-0.15, 0.15, len(groups)) if known.index.has_duplicates else np.zeros(len(groups))
    for (group, own), shift in zip(groups.items(), shifts, strict=True):
        label = {"label": group or "ours"}
        for name, row in own.iterrows():
            rows.plot([row["low"], row["high"]], name, shift, color=colours[group if by else name])
            rows.plot([row["estimate"]], name, shift, "o", color=colours[group if by else name], **label)
            if null:
                rows.plot([row["null"]], name, shift, "_" if upright else "|", color="black", markersize=14)
    for name, some in points.iterrows():
        some = some.dropna()
        spread = np.linspace(-0.15, 0.15, len(some)) if len(some) > MANY else 0.0
        look = {"color": "#808080", "markersize": 5, "label": points.columns.name}
        rows.plot(some, name, 0.3 + spread, "x" if cross else "o", **look)
    rows.label(reference)
    axis.set(**properties)
    put_legend(axis, legend if by or points.columns.name else "")
    return figure_of(axis)


def _row_colours(names: list[Any], level: Any, colours: Mapping[Any, str] | None) -> dict[Any, str]:
    plain = language_colours(names) if level == "lang" else dict.fromkeys(names, PALETTE[0])
    return {**plain, **(colours or {})}


def _group_colours(groups: Iterable[Any], colours: Mapping[Any, str] | None) -> dict[Any, str]:
    groups = list(groups)
    return {**dict(zip(groups, palette(len(groups)), strict=True)), **(colours or {})}
