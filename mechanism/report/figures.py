"""One look for every figure: readable on light and dark pages and on a phone, in colours the colour-blind can tell.

Alternative texts and captions of static figures stand in the metadata of the notebook's cell (`mystnb.image.alt`,
`mystnb.figure.caption` and `mystnb.figure.name`).
"""

import base64
import html
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from ..corpus.languages import LANGUAGES, language

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito's palette, the yellow left out: it is too pale on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
RESOURCES = ("high", "mid", "low", "unknown")
# A hue for each language family, told apart also without red, green or blue cones (a test simulates it).
FAMILY_COLOURS = {
    "Indo-European": "#0072B2",
    "Afro-Asiatic": "#BB4444",
    "Atlantic-Congo": "#AA3377",
    "Austroasiatic": "#8C8C00",
    "Austronesian": "#EE6677",
    "Turkic": "#CC79A7",
    "Japonic": "#3D9BE0",
    "Koreanic": "#4B4B4B",
    "Sino-Tibetan": "#000000",
}
OTHER_COLOUR = "#767676"
RESOURCE_LINES = dict(zip(RESOURCES, ("-", "--", "-.", ":"), strict=True))
SEQUENTIAL = "viridis"
DIVERGING = "RdBu_r"
MOST = 150_000
"""Characters of SVG that a figure may have."""
PHONE = 358
"""Pixels of text width on a phone 390 pixels wide."""
_PLACES, _DIGITS = re.compile(r'\b(?:d|x|y)="[^"]*"'), re.compile(r"(\.\d\d)\d+")
_FADE = 0.5
_STYLE: Any = {
    "figure.figsize": (6.4, 4.2),
    "figure.dpi": 120,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "xtick.labelsize": 12.5,
    "ytick.labelsize": 12.5,
    "legend.fontsize": 12.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 2.0,
    "image.cmap": SEQUENTIAL,
}


def use_style() -> None:
    """Set matplotlib's defaults to the report's look."""
    plt.rcParams.update(_STYLE)
    plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE)


def order_languages(codes: Iterable[str]) -> list[str]:
    """Languages from most to least training text, which also groups them by resource class; codes that the report does
    not know come last, in alphabetical order."""
    rank = {code: i for i, code in enumerate(LANGUAGES)}
    return sorted(codes, key=lambda code: (rank.get(code, len(rank)), code))


def resource_class(code: str) -> str:
    """Resource class of a language; `unknown` for one that the report does not know."""
    return LANGUAGES[code].resource if code in LANGUAGES else "unknown"


def language_family(code: str) -> str:
    """Family of a language; `other` for one that the report does not know."""
    return LANGUAGES[code].family if code in LANGUAGES else "other"


def language_colours(codes: Iterable[str]) -> dict[str, str]:
    """A colour per language: the hue of its family, paler the less training text it has within the family. Languages
    that the report knows keep theirs whichever others are asked for."""
    ordered = order_languages(codes)
    known = order_languages({*LANGUAGES, *ordered})
    colours = {}
    for code in ordered:
        family = [other for other in known if language_family(other) == language_family(code)]
        base = np.array(to_rgb(FAMILY_COLOURS.get(language_family(code), OTHER_COLOUR)))
        red, green, blue = base + (1 - base) * _FADE * family.index(code) / max(len(family) - 1, 1)
        colours[code] = to_hex((red, green, blue))
    return colours


def language_label(code: str) -> str:
    """`Swahili (sw)`; the bare code for one that the report does not know."""
    return f"{language(code).name} ({code})" if code in LANGUAGES else code


def png(figure: Figure, **options: Any) -> bytes:
    """A figure as PNG with 192 colours, a third of the size of one with all of them; the same bytes for the same
    figure and matplotlib. `options` are those of `savefig`."""
    from PIL import Image

    stream, small = io.BytesIO(), io.BytesIO()
    figure.savefig(stream, format="png", **({"bbox_inches": "tight"} | options))
    image = Image.open(stream).convert("RGB").quantize(192, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def svg(figure: Figure) -> str:
    """A figure as SVG on one line, as a notebook keeps every line as a string of its own, its places to a hundredth of
    a point; the same text for the same figure and matplotlib."""
    stream = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "mechanism"}):
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _PLACES.sub(lambda found: _DIGITS.sub(r"\1", found[0]), " ".join(stream.getvalue().split()))


def smallest(figure: Figure) -> float:
    """Size of a figure's smallest letters on a phone, in pixels, where the figure is as wide as the text."""
    figure.draw_without_rendering()
    inches = figure.get_tightbbox().width
    sizes = [float(own.get_fontsize()) for own in figure.findobj(Text) if own.get_visible() and own.get_text().strip()]
    return round(min(sizes, default=0) / (72 * inches) * PHONE, 1)


def show(figure: Figure) -> None:
    """Put a figure below the cell, once, with a link to its numbers, and close it: as SVG, or as PNG where that would
    be larger than a page can bear."""
    from IPython import get_ipython
    from IPython.display import HTML, display

    from .behind import csv_link, drawn

    if get_ipython() is not None:
        table, least, lines = drawn(figure), smallest(figure), svg(figure)
        image = {"image/svg+xml": lines} if len(lines) < MOST else {"image/png": base64.b64encode(png(figure)).decode()}
        display({**image, "text/plain": repr(figure)}, raw=True, metadata={"smallest": least})
        if len(table):
            display(HTML(csv_link(table)))
    plt.close(figure)


@dataclass(frozen=True)
class Interactive:
    """An interactive figure as a page shows it: plotly where scripts run, the static image elsewhere.

    Attributes:
        name: fixed id of its element, unique on the page.
        html: the element; plotly.js itself is not in it, the page loads it once.
    """

    name: str
    html: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": f"<interactive figure {self.name}>"}


def interactive(figure: "go.Figure", name: str, alt: str, static: Figure, script: str | None = None) -> Interactive:
    """Wrap a plotly figure for the page; the matplotlib figure is its static twin and gets closed.

    Args:
        name: fixed id of its element, unique on the page; alt: what it shows, in words.
        script: runs when it is drawn; plotly fills in `{plot_id}`.

    Raises:
        ValueError: no alternative text.
    """
    if not alt.strip():
        raise ValueError(f"interactive figure {name!r} needs an alternative text")
    figure.update_layout(template="plotly_white", font={"size": 14}, margin={"l": 50, "r": 20, "t": 40, "b": 50})
    config = {"responsive": True, "displaylogo": False}
    body = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config, post_script=script)
    alt, image = html.escape(alt, quote=True), base64.b64encode(png(static)).decode()
    plt.close(static)
    fallback = f'<noscript><img alt="{alt}" src="data:image/png;base64,{image}"></noscript>'
    return Interactive(name, f'<figure class="interactive" aria-label="{alt}">{body}{fallback}</figure>')
