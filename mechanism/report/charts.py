"""The charts of the report: each draws a labelled table and returns its figure, and the look of all is decided here.

The name of a level says how it looks: `lang` has the colours of families, the dashes of resource classes and the
report's order; numbers, such as layers, go from dark to light; anything else takes the palette in turn. Estimates with
bounds are columns `estimate` (or `value`, `gain`, `mean`), `low` and `high`. What has no number is left out. Options
that a chart does not name are properties of the axis, as `Axes.set` takes them; with `axis`, a chart is drawn on it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .axes import (
    DASHED,
    MANY,
    SMALL,
    WIDEST,
    Number,
    Size,
    Styles,
    figure_of,
    looks,
    name_ends,
    ordered,
    palette,
    put_legend,
    start,
    text,
)
from .figures import DIVERGING, SEQUENTIAL, language_colours, language_label
from .points import forest, language_scatter, scatter
from .tables import estimates

__all__ = [
    "CHANCE", "NULL", "bars", "bounds", "forest", "heat", "language_scatter", "lines", "over_tokens", "panels",
    "quantities", "scatter", "stacked",
]  # fmt: skip
CHANCE: Mapping[str, Any] = {"color": "black", "linestyle": "--"}
"""Style of a line for what chance, or a matched control, would give."""
NULL: Mapping[str, Any] = {"color": "grey"}
"""Style of where matched random sets lie, at one place."""
_HALF = 4.2  # inches that a panel may be wide, so that it gets half of a row


def bounds(array: xr.DataArray, x: str) -> pd.DataFrame:
    """What `lines` draws of an array: rows `x`, a column for each value of its other dimension, and for each `bound`
    (`value`, `low`, `high`) of it where it has them."""
    others = sorted((str(name) for name in array.dims if name != x), key="bound".__eq__)
    turned = array.transpose(x, *others)
    return (turned.stack(line=others) if len(others) > 1 else turned).to_pandas()


def lines(
    table: pd.DataFrame, *, styles: Styles | None = None, marker: str = "", reference: Number | None = None,
    threshold: Number | None = None, legend: str = "auto", axis: Axes | None = None, size: Size = (6.4, 4.2),
    **properties: Any,
) -> Figure:  # fmt: skip
    """Lines over the index: a column each, or two levels of columns, the second of which are the bounds of a band. A
    single point has its bounds as an upright bar.

    Args:
        styles: properties of lines that differ from those of their level, by name.
        marker: on every line.
        reference: value of a dashed line across; threshold: place of a grey dashed line upright.
        legend: `inside`, `outside`, `auto` for one of them by the number of lines, `ends` for names at the ends of the
            lines, as languages always have them, or empty for none.

    Raises:
        ValueError: there is nothing to draw, or a band lacks its bounds.
    """
    level = table.columns.names[0]
    names = ordered(table.columns.get_level_values(0), level)
    shown = {name: own for name in names if len(own := _line_of(table, name))}
    axis = start(axis, size, shown, table)
    for name, look in looks(list(shown), level, styles or {}).items():
        _line(axis, shown[name], {"marker": marker, "label": text(name), **look})
    if reference is not None:
        axis.axhline(reference, **DASHED)
    if threshold is not None:
        axis.axvline(threshold, **{**DASHED, "color": "grey"})
    if table.index.name == "layer":
        axis.set_xticks(table.index)
    axis.set(**{"xlabel": table.index.name or "", **properties})
    if legend == "ends" or (legend and level == "lang"):
        name_ends(axis)
    else:
        put_legend(axis, legend, level)
    return figure_of(axis)


def _line_of(table: pd.DataFrame, name: Any) -> pd.Series | pd.DataFrame:
    """One line, or a line with its bounds, where they have numbers."""
    own = table[name].dropna(how="all")
    return own.iloc[:, 0] if own.ndim > 1 and own.shape[1] == 1 else own


def _line(axis: Axes, table: pd.Series | pd.DataFrame, look: Mapping[str, Any]) -> None:
    if isinstance(table, pd.Series):
        axis.plot(table.index, table, **look)
        return
    middle = estimates(table)
    band = table[["low", "high"]].astype(float)
    if len(table) == 1:
        ends = np.stack([middle - band["low"], band["high"] - middle])
        axis.errorbar(table.index, middle, ends, **{"marker": "o", "capsize": 4, **look})
        return
    (line,) = axis.plot(table.index, middle, **look)
    axis.fill_between(table.index, band["low"], band["high"], color=line.get_color(), alpha=0.15, linewidth=0)


def over_tokens(table: pd.DataFrame, **options: Any) -> Figure:
    """Curves over training tokens, shown in millions; see `lines`."""
    return lines(table.set_axis(table.index / 1e6), **{"xlabel": "training tokens, millions", **options})


def heat(
    table: pd.DataFrame, *, texts: pd.DataFrame | str | None = None, strong: pd.DataFrame | None = None,
    limits: tuple[Number | None, Number | None] = (None, None), diverging: bool = False, norm: Any = None,
    bar: str | None = "", axis: Axes | None = None, size: Size | None = None, **properties: Any,
) -> Figure:  # fmt: skip
    """A map of a table's numbers, rows downwards; cells without a number stay white.

    Args:
        texts: what stands in the cells, or the format in which their numbers do.
        strong: cells whose text is bold.
        limits: ends of the colours; diverging: colours on both sides of zero, as far as the largest number.
        norm: of the colours, instead.
        bar: label of the colour bar; None for no bar.

    Raises:
        ValueError: there is nothing to draw.
    """
    size = size or (2.0 + 0.55 * table.shape[1], 1.2 + 0.3 * len(table))
    axis = start(axis, size, table.stack().dropna(), table)
    if diverging:
        most = float(np.nanmax(np.abs(table.to_numpy(float)))) or 1.0
        limits = -most, most
    written = texts if isinstance(texts, pd.DataFrame) else texts is not None
    sns.heatmap(
        table.astype(float), vmin=limits[0], vmax=limits[1], norm=norm, cmap=DIVERGING if diverging else SEQUENTIAL,
        annot=written, fmt=texts if isinstance(texts, str) else "", annot_kws={"size": SMALL}, ax=axis,
        cbar=bar is not None, cbar_kws={"label": bar}, xticklabels=_every(table.columns),
        yticklabels=_every(table.index),
    )  # fmt: skip
    if strong is not None:
        for cell, bold in zip(axis.texts, strong.to_numpy()[table.notna().to_numpy()], strict=True):
            cell.set_fontweight("bold" if bold else "normal")
    axis.tick_params(axis="y", rotation=0, labelsize=SMALL if len(table) > 2 * MANY else None)
    if any(len(str(name)) > MANY for name in table.columns):
        plt.setp(axis.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
    axis.grid(False)
    axis.set(**{"xlabel": table.columns.name or "", "ylabel": "", **properties})
    return figure_of(axis)


def _every(names: pd.Index) -> int:
    """How many names of an axis share a label: all have one, but of many numbers every tenth."""
    return 10 if pd.api.types.is_numeric_dtype(names) and len(names) > 20 else 1


def bars(
    table: pd.Series, *, reference: Number | None = None, axis: Axes | None = None, size: Size = (6.4, 6.4),
    **properties: Any,
) -> Figure:  # fmt: skip
    """A bar to the right for each language of the index, the one with most training text on top.

    Args:
        reference: value of a dashed line.

    Raises:
        ValueError: there is nothing to draw.
    """
    table = table.dropna()
    axis = start(axis, size, table, table)
    colours = language_colours(table.index)
    axis.barh([language_label(code) for code in colours], table[list(colours)], color=list(colours.values()))
    if reference is not None:
        axis.axvline(reference, **DASHED)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(**properties)
    return figure_of(axis)


def stacked(table: pd.DataFrame, *, axis: Axes | None = None, size: Size = (7.4, 3.9), **properties: Any) -> Figure:
    """Bars upright over the index, made of a part for each column.

    Raises:
        ValueError: there is nothing to draw.
    """
    axis = start(axis, size, table.stack().dropna(), table)
    table.plot.bar(stacked=True, rot=0, width=0.8, color=palette(table.shape[1]), legend=False, ax=axis)
    axis.grid(axis="x", visible=False)
    axis.set(**{"xlabel": table.index.name or "", **properties})
    put_legend(axis, "outside")
    return figure_of(axis)


def panels(
    chart: Callable[..., Figure], tables: Mapping[str, Any], *, names: str = "title", share: str = "y",
    legend: str = "each", size: Size = (2.6, 4.0), widths: list[Number] | None = None, bar: str | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None, **options: Any,
) -> Figure:  # fmt: skip
    """A chart of each table, two in a row, or one where a panel is wide: what is wider cannot be read on a phone.

    Args:
        names: which property of its axis the name of a table is: `title`, `xlabel` or `ylabel`.
        share: axes that all panels have in common: `x`, `y`, `xy` or none.
        legend: `each` panel has one, or the `first` or the `last`, or one stands `outside` for all of them.
        size: width and height of a panel, in inches; widths: relative ones, of panels in one row.
        bar: label of one colour bar for all of them.
        own: options of single panels by their names; `options` are those of all.

    Raises:
        ValueError: there is no table, or nothing to draw in one of them.
    """
    many = len(tables)
    if not many:
        raise ValueError("nothing to draw: there is no table")
    across = min(many, 2 if size[0] <= _HALF else 1)
    down = -(-many // across)
    wide = min(WIDEST, 1.2 + size[0] * across)
    figure, axes = plt.subplots(
        down, across, figsize=(wide, size[1] * down * (0.85 if down > 1 else 1)), squeeze=False, sharex="x" in share,
        sharey="y" in share, width_ratios=widths if widths and across == len(widths) else None,
    )  # fmt: skip
    named: list[Axes] = []
    for place, (axis, (name, table)) in enumerate(zip(axes.flat, tables.items(), strict=False)):
        has_legend = legend == "each" or place == {"first": 0, "last": many - 1}.get(legend)
        direct = chart is lines and table.columns.names[0] == "lang" and bool(legend)
        key = {"bar": None} if chart is heat else {"legend": "auto" if has_legend and not direct else ""}
        chart(table, axis=axis, **{**key, names: name, **options, **(own or {}).get(name, {})})
        if direct:
            named.append(axis)
        if place % across and "y" in share:
            axis.set_ylabel("")
        if "x" in share and place + across < many:
            axis.set_xlabel("")
    for axis in axes.flat[many:]:
        axis.set_axis_off()
    if "x" in share and many % across:
        axes[-2, -1].tick_params(labelbottom=True)
    for axis in named:  # after all are drawn, as shared axes have their limits then
        name_ends(axis)
    if legend == "outside" and not named:
        put_legend(axes.flat[:many], "outside", table.columns.names[0] if chart is not forest else None)
    if bar is not None:
        figure.colorbar(axes.flat[many - 1].collections[0], ax=axes, label=bar)
    return figure


def quantities(
    curves: Mapping[str, pd.DataFrame], columns: Mapping[str, str | list[str]], *, chart: Callable[..., Figure] = lines,
    legend: str = "first", size: Size = (3.8, 3.8), **options: Any,
) -> Figure:  # fmt: skip
    """A panel for each quantity, a line for each table.

    Args:
        curves: tables by line; columns: of a quantity by its label, one or three: estimate, low and high.

    Raises:
        ValueError: there is no quantity, or nothing to draw of one.
    """
    shown = {
        label: pd.concat({line: _quantity(table, name) for line, table in curves.items()}, axis=1)
        for label, name in columns.items()
    }
    return panels(chart, shown, names="ylabel", share="", legend=legend, size=size, **options)


def _quantity(table: pd.DataFrame, columns: str | list[str]) -> pd.Series | pd.DataFrame:
    own = table[columns]
    return own.set_axis(["estimate", "low", "high"], axis=1) if isinstance(own, pd.DataFrame) else own
