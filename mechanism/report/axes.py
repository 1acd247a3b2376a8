"""What the charts have in common: the axis they draw on, colours by level, legends, and names beside points."""

from collections.abc import Hashable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from scipy.optimize import isotonic_regression

from .figures import PALETTE, RESOURCE_LINES, SEQUENTIAL, language_colours, order_languages, resource_class

DASHED: Mapping[str, Any] = {"color": "black", "linewidth": 1, "linestyle": "--"}
MANY, SMALL = 8, 12.5
"""Entries of a legend that stands within the axes; size of the smallest letters: 9 pixels on a phone, at full width."""
WIDEST = 6.3
"""Width of a figure in inches, at most."""
# Where a name may stand beside its point: to the right or the left of it or in the middle, and how far up, in points.
_SIDES = ((5, 2), (5, -12), (-5, 2), (-5, -12), (0, 6), (0, -17), (8, 15), (-8, 15), (8, -26), (-8, -26))
Styles = Mapping[Any, Mapping[str, Any]]
BEHIND: MutableMapping[Axes, pd.DataFrame | pd.Series] = WeakKeyDictionary()
"""The table that each axis shows."""
Number = int | float
Size = tuple[Number, Number]
"""Width and height in inches."""


def start(axis: Axes | None, size: Size, shown: Any, table: pd.DataFrame | pd.Series) -> Axes:
    """The axis to draw a table on, or that of a new figure; ValueError if nothing is shown of it."""
    if not len(shown):
        raise ValueError("nothing to draw: the table has no numbers")
    axis = plt.subplots(figsize=(min(size[0], WIDEST), size[1]))[1] if axis is None else axis
    BEHIND[axis] = table
    return axis


def figure_of(axis: Axes) -> Figure:
    """The figure of an axis."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    return figure


def need(table: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise ValueError if a table lacks some of the columns, with their names."""
    missing = [name for name in columns if name and name not in table]
    if missing:
        raise ValueError(f"the table lacks {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")


def ordered(names: Iterable[Any], level: Hashable) -> list[Any]:
    """Names of a level, each once; languages in the report's order."""
    once = list(dict.fromkeys(names))
    return order_languages(once) if level == "lang" else once


def text(name: Hashable) -> str:
    """A name as a label shows it."""
    return f"{name:.3g}" if isinstance(name, float) else str(name)


def palette(many: int) -> list[str]:
    """So many colours of the palette, over again if there are too few."""
    return [PALETTE[i % len(PALETTE)] for i in range(many)]


def looks(names: Sequence[Any], level: Hashable, styles: Styles) -> dict[Any, dict[str, Any]]:
    """Properties of the lines of a level by name, those that are given first."""
    if level == "lang":
        colours: Any = language_colours(names).values()
    elif pd.api.types.is_numeric_dtype(pd.Index(names)):
        colours = plt.get_cmap(SEQUENTIAL)(np.linspace(0, 0.9, len(names)))
    else:
        colours = palette(len(names))
    dashes = [RESOURCE_LINES[resource_class(name)] if level == "lang" else "-" for name in names]
    plain = zip(names, colours, dashes, strict=True)
    return {name: {"color": colour, "linestyle": dash, **styles.get(name, {})} for name, colour, dash in plain}


def put_legend(axes: Axes | Iterable[Axes], where: str, level: Hashable = None) -> None:
    """A legend of each label once, titled by its level.

    Args:
        axes: whose labels it has; of several, it stands outside.
        where: `inside` the axis, `outside` of all, `auto` for one of them by the number of labels, or
            empty for none. Outside is below the figure.
    """
    axes = [axes] if isinstance(axes, Axes) else list(axes)
    known = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if not where or not known:
        return
    look: dict[str, Any] = {"title": level if level != "lang" else None}
    if where == "outside" or (where == "auto" and len(known) > MANY):
        most = max(len(label) for label in known)
        look |= {"ncols": max(1, min(len(known), 48 // (most + 5)))}
        figure_of(axes[0]).legend(known.values(), known, loc="outside lower center", **look)
    else:
        axes[0].legend(known.values(), known, loc="best", **look)


def name_ends(axis: Axes) -> None:
    """Write the label of each line at its right end, darker than it; where labels would cover one another they move
    apart, and a thin line leads to the end that they name."""
    lines = [line for line in axis.lines if not str(line.get_label()).startswith("_") and np.size(line.get_xdata())]
    if not lines:
        return
    figure_of(axis).draw_without_rendering()
    ends = np.array([np.asarray(line.get_xydata())[-1] for line in lines], dtype=float)
    points = axis.transData.transform(ends)[:, 1] * 72 / figure_of(axis).dpi
    right = axis.get_xlim()[1]
    for line, end, shift in zip(lines, ends, apart(points, 1.05 * SMALL) - points, strict=True):
        width = axis.transData.transform([(right, 0), (end[0], 0)])[:, 0]
        reach = float(width[0] - width[1]) * 72 / figure_of(axis).dpi + 12
        axis.annotate(
            str(line.get_label()), tuple(end), xytext=(reach, shift), textcoords="offset points", va="center",
            color=tuple(0.7 * np.array(to_rgb(line.get_color()))), fontsize=SMALL, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


def apart(places: np.ndarray, least: float) -> np.ndarray:
    """Places in the same order, none nearer than `least` to the next, moved as little as possible in all (squares)."""
    order = np.argsort(places, kind="stable")
    even = np.arange(len(places)) * least
    moved = isotonic_regression(places[order] - even).x + even
    return moved[np.argsort(order)]


def name_points(axis: Axes, spots: pd.DataFrame, fontsize: Number = SMALL) -> None:
    """Write the names of points beside them, each at the side where it covers least of other points and names."""
    figure = figure_of(axis)
    figure.draw_without_rendering()
    centres = axis.transData.transform(spots.to_numpy(float)) * 72 / figure.dpi
    taken = [Bbox([centre - 4, centre + 4]) for centre in centres]
    for name, centre in zip(spots.index, centres, strict=True):
        width = 0.62 * fontsize * len(str(name))
        starts = [(right - width * (1 - np.sign(right)) / 2, up) for right, up in _SIDES]
        boxes = [Bbox([centre + start, centre + start + (width, fontsize)]) for start in starts]
        best = int(np.argmin([_covered(box, taken) for box in boxes]))
        taken.append(boxes[best])
        spot = tuple(spots.loc[name])
        axis.annotate(str(name), spot, xytext=starts[best], textcoords="offset points", fontsize=fontsize)


def _covered(box: Bbox, others: Iterable[Bbox]) -> float:
    shared = [Bbox.intersection(box, other) for other in others]
    return float(sum(part.width * part.height for part in shared if part is not None))
