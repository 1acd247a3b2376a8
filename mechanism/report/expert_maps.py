"""Maps of layers by experts: one panel a domain, static; or one panel with a menu of domains, interactive."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from .axes import BEHIND
from .explorer import map_script
from .figures import DIVERGING, PALETTE, SEQUENTIAL, Interactive, interactive

if TYPE_CHECKING:
    import plotly.graph_objects as go

_COLUMNS, _MANY = 2, 9
_LARGEST = 3.0


def lift_map(
    lift: xr.DataArray, shown: Mapping[str, xr.DataArray], words: Mapping[str, xr.DataArray], name: str, group: str
) -> Interactive:
    """The interactive map of `lift` with its static twin; see `interactive_map` for `shown` and `words`. Its cells lead
    to the token explorer.

    Args:
        name: id of the figure; group: what the last axis names, as the alternative text says it.
    """
    alt = (
        f"Map of layers by experts, one {group} at a time: how much more often the {group} selects each expert than "
        f"{group}s on average do, as the logarithm of lift; blue is less often, red more often."
    )
    dynamic = interactive_map(*_labelled(lift), shown, words)
    return interactive(dynamic, name, alt=alt, static=lift_panels(lift), script=map_script(group))


def lift_panels(lift: xr.DataArray, marks: xr.DataArray | None = None) -> Figure:
    """The static maps of `lift`; see `static_maps` for `marks`."""
    return static_maps(*_labelled(lift), marks)


def static_maps(
    values: xr.DataArray, label: str, scale: int | float | Normalize, marks: xr.DataArray | None = None, mark: str = "*"
) -> Figure:
    """A panel per domain, or whatever the last axis names, of `(layer, expert, domain)` values; cells that are not
    known stay white.

    Args:
        label: of the colour bar; empty for no bar.
        scale: limit of diverging colours on both sides of zero, or the norm of sequential ones.
        marks: cells with a mark, `(layer, expert)` or with the last axis; it is a black star or `o`, a circle.
    """
    groups = str(values.dims[-1])
    names = values[groups].values
    columns = min(_COLUMNS * (1 + (len(names) > _MANY)), len(names))
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns + 1, 0.9 + 2.2 * rows), sharex=True, sharey=True, squeeze=False
    )
    look = {"cmap": DIVERGING, "vmin": -scale, "vmax": scale} if not isinstance(scale, Normalize) else {"norm": scale}
    for axis, name in zip(axes.flat, names, strict=False):
        BEHIND[axis] = values.sel({groups: name}, drop=True).transpose("layer", "expert").to_pandas()
        axis.imshow(values.sel({groups: name}), aspect="auto", **({"cmap": SEQUENTIAL} | look))
        axis.set_title(str(name))
        axis.grid(False)
        axis.set_yticks(range(values.sizes["layer"]), values["layer"].values)
        if marks is not None:
            _mark(axis, marks.sel({groups: name}) if groups in marks.dims else marks, mark)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("layer")
    for column in range(columns):
        last = [axis for axis in axes[:, column] if axis.axison][-1]
        last.set_xlabel("expert")
        last.tick_params(labelbottom=True)
    if label:
        figure.colorbar(axes.flat[0].images[0], ax=axes, label=label, shrink=0.8)
    return figure


def _labelled(lift: xr.DataArray) -> tuple[xr.DataArray, str, float]:
    """Lift on a logarithmic scale, NaN for never selected; its name, and the limit of its colours."""
    doubled = xr.apply_ufunc(np.log2, lift.where(lift > 0))
    return doubled, "log2 lift", min(_LARGEST, float(np.ceil(2 * doubled.max()) / 2))


def _mark(axis: Axes, marked: xr.DataArray, mark: str) -> None:
    rows, columns = np.nonzero(marked.transpose("layer", "expert").values)
    look = {"*": ("black", "black"), "o": ("none", PALETTE[1])}[mark]
    axis.plot(columns, rows, mark, markersize=6, markerfacecolor=look[0], markeredgecolor=look[1])


def interactive_map(
    values: xr.DataArray,
    label: str,
    limit: float,
    shown: Mapping[str, xr.DataArray],
    words: Mapping[str, xr.DataArray] | None = None,
) -> "go.Figure":
    """The same as one map with a menu of domains; pointing at a cell shows `shown` (numbers) and `words` (texts, as
    HTML), by name, over `(layer, expert, domain)`. Numbers are rounded to three digits: the page stays small."""
    import plotly.graph_objects as go

    words = words or {}
    groups = str(values.dims[-1])
    names, layers, experts = (values[level].values.astype(str).tolist() for level in (groups, "layer", "expert"))
    hover = "".join(f"<br>{name} %{{customdata[{i}]:.3g}}" for i, name in enumerate(shown))
    hover += "".join(f"<br>{name}: %{{customdata[{i}]}}" for i, name in enumerate(words, len(shown)))
    traces = []
    for number, name in enumerate(names):
        own = [_rounded(one.sel({groups: name})) for one in shown.values()]
        own += [one.sel({groups: name}).values.astype(object) for one in words.values()]
        traces.append(
            go.Heatmap(
                z=_rounded(values.sel({groups: name})).tolist(), x=experts, y=layers,
                customdata=np.stack(own, -1).tolist(), name=name, visible=number == 0, zmin=-limit,
                zmax=limit, colorscale="RdBu_r", colorbar={"title": {"text": label}}, hoverongaps=False,
                hovertemplate=f"layer %{{y}}, expert %{{x}}<br>{label} %{{z:.2f}}{hover}<extra>{name}</extra>",
            )
        )  # fmt: skip
    figure = go.Figure(traces)
    buttons = [
        {"label": name, "method": "update", "args": [{"visible": [other == name for other in names]}]} for name in names
    ]
    figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 0, "xanchor": "left", "y": 1.15, "yanchor": "top"}],
        xaxis={"title": {"text": "expert"}, "type": "category"},
        yaxis={"title": {"text": "layer"}, "type": "category", "autorange": "reversed"},
    )
    return figure


def _rounded(values: xr.DataArray) -> np.ndarray:
    """Three digits; None for what is not known, as JSON has no NaN."""
    known = values.values.astype(np.float64)
    return np.where(np.isnan(known), None, np.round(known, 3))  # type: ignore[call-overload]
