"""Drawing a feed-forward layer from the shapes of the built module."""

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ..nn.auto import LayerConfig
from ..nn.feedforward import DenseConfig
from ..nn.multihead import MultiHeadMoEConfig
from .axes import SMALL
from .figures import PALETTE

_HEIGHT = 0.72
_PLACES = 8  # boxes that fit into the height of a figure, so that all have one size
_COLOURS = {"rows": "#f2f2f2", "square": PALETTE[2], "router": PALETTE[4], "experts": PALETTE[0], "shared": PALETTE[3]}


class Stage(NamedTuple):
    """What a token passes: its `kind` (`rows`, `square`, `router`, `experts`, `shared`) and what stands in its box."""

    kind: str
    text: str


def stages(config: LayerConfig) -> list[Stage]:
    """The stages of a layer from input to output; sizes of weights are those of the built layer's parameters."""
    shapes = {name: "×".join(map(str, p.shape)) for name, p in config.build().named_parameters()}
    token = Stage("rows", f"token, {config.hidden}")
    if isinstance(config, DenseConfig):
        weights = f"up {shapes['up_proj.weight']}\ndown {shapes['down_proj.weight']}"
        return [token, Stage("experts", f"dense\n{weights}"), token]
    inner = [
        Stage("router", f"router {shapes['router.weight']}\ntop {config.top_k} of {config.experts}"),
        Stage("experts", f"experts\nup {shapes['experts.up_proj']}\ndown {shapes['experts.down_proj']}"),
    ]
    if isinstance(config, MultiHeadMoEConfig):
        split = Stage("rows", f"split: {config.heads} sub-tokens, {config.head_width}")
        inner = [split, *inner, Stage("rows", f"join: {config.hidden}")]
    head, merge = (
        [Stage("square", f"{name} {shapes[f'{name}.weight']}")] if f"{name}.weight" in shapes else []
        for name in ("head", "merge")
    )
    width = config.shared_width
    shared = [Stage("shared", f"+ shared expert\nwidth {width}, on the token")] if width else []
    return [token, *head, *inner, *merge, *shared, token]


def draw_layers(layers: Mapping[str, LayerConfig]) -> Figure:
    """The stages of layers from top to bottom, two layers in a row, titled by their names."""
    rows = -(-len(layers) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(6.0, 5.8 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, config) in zip(axes.flat, layers.items(), strict=False):
        _draw(axis, stages(config))
        axis.set_title(title)
    return figure


def _draw(axis: Axes, found: list[Stage]) -> None:
    top = (_PLACES + len(found)) / 2
    for i, stage in enumerate(found):
        y = top - i - 1
        box = FancyBboxPatch(
            (0.05, y + (1 - _HEIGHT) / 2), 0.9, _HEIGHT, boxstyle="round,pad=0,rounding_size=0.05",
            facecolor=_COLOURS[stage.kind], alpha=1 if stage.kind == "rows" else 0.35, edgecolor="black", linewidth=0.8,
        )  # fmt: skip
        axis.add_patch(box)
        axis.text(0.5, y + 0.5, stage.text, ha="center", va="center", fontsize=SMALL)
        if i:
            axis.annotate(
                "", (0.5, y + 0.5 + _HEIGHT / 2), (0.5, y + 1 + (1 - _HEIGHT) / 2),
                arrowprops={"arrowstyle": "->", "linewidth": 0.8},
            )  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, _PLACES))
