"""The front page's figure, natural languages beside clones of English, from records; and the card of links."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..corpus.languages import UNKNOWN, language
from ..measure.profile import depth_windows
from ..study.clones.tables import BASE, Clones
from ..study.embedded.history import History, load_history
from ..study.grids import load_grid
from .figures import PALETTE, png, use_style

CORPUS = "udhr"  # the one text that every language of the report has
CARD_SIZE = (12.0, 6.3)  # inches at 100 dots: what link previews show
_LOUD = "#0B2A3C"
_COLOURS = {"Latin script": PALETTE[0], "other scripts": PALETTE[1], "never trained on": PALETTE[6]}
_LINES = {"Latin script": "-", "other scripts": "--", "never trained on": ":"}


@dataclass(frozen=True)
class Hero:
    """A figure with its words: `alt` says what is drawn, `caption` what it shows."""

    figure: Figure
    alt: str
    caption: str


def hero(grid: str = "clones") -> Hero:
    """Routing divergence from English by layer, a line per language, at the last probe of the embedded model's record;
    beside it that of clones of English, where the runs of a grid's base are all there.

    Raises:
        FileNotFoundError: the embedded model's record is not there; see `load_history`.
    """
    history, clones = load_history("main"), Clones(load_grid(grid))
    profile, two = divergence_profile(history), BASE in clones.made
    with plt.rc_context():
        use_style()
        figure, axes = plt.subplots(1, 1 + two, figsize=(7.2, 4.4 if two else 3.9), sharey=True, squeeze=False)
        _draw(profile, axes[0, 0], "natural languages" if two else "")
        alt = (
            f"Divergence of routing from English over the layers of the model: a thin line for each of {len(profile)} "
            "languages and a thick one for the mean of each group, which are trained languages in Latin script, "
            "trained languages in other scripts, and languages that were never trained on."
        )
        caption = f"{_finding(profile)} {_origin(history)}"
        if two:
            _draw_clones(clones, axes[0, 1])
            alt += " Beside it the same for clones of English, with pairs of different segments as the null."
            caption = f"Left: {caption} Right: {_clone_finding(clones)}"
        axes[0, 0].set_ylim(bottom=0)  # after all is drawn, as both panels share it
    return Hero(figure, alt, caption)


def divergence_profile(history: History) -> pd.DataFrame:
    """Mean divergence from English at the last probe, languages by layers; English itself is left out."""
    values = history.stats["divergence"].isel(tokens_seen=-1).sel(corpus=CORPUS).mean("segment")
    return values.drop_sel(lang="en").dropna("lang", how="all").to_pandas()


def card(counts: Mapping[str, int], sources: int) -> bytes:
    """The image that links to the report show, as PNG: its title and the claims by verdict."""
    figure = plt.figure(figsize=CARD_SIZE, dpi=100, facecolor=_LOUD, layout="none")
    figure.text(0.06, 0.74, "Mechanism", color="white", fontsize=58, fontweight="bold")
    figure.text(0.06, 0.60, "How do Mixture-of-Experts language models route?", color="white", fontsize=27)
    told = f"{sum(counts.values())} claims of {sources} sources, re-implemented, run and judged by code"
    figure.text(0.06, 0.50, told, color="#C8DCE8", fontsize=20)
    left = 0.06
    colours = ("#7FD1AE", "#F0C36D", "#EF9A76", "#9FB4E0", "#C9CED1", "#5D7B8C")
    for count, colour in zip(counts.values(), colours, strict=True):
        width = 0.88 * count / sum(counts.values())
        figure.add_artist(plt.Rectangle((left, 0.26), width, 0.12, color=colour, transform=figure.transFigure))
        left += width
    words = [f"{count} {name}" for name, count in counts.items() if count]
    figure.text(0.06, 0.15, "  ·  ".join(words), color="white", fontsize=17)
    image = png(figure, facecolor=_LOUD, bbox_inches=None)
    plt.close(figure)
    return image


def _groups(codes: Iterable[str]) -> dict[str, list[str]]:
    """Languages by what the model can know of them: the script of English, another one, or no training text at all."""
    groups: dict[str, list[str]] = {name: [] for name in _COLOURS}
    for code in codes:
        script = "Latin script" if language(code).script == "Latn" else "other scripts"
        groups["never trained on" if code in UNKNOWN else script].append(code)
    return {name: members for name, members in groups.items() if members}


def _draw(profile: pd.DataFrame, axis: Axes, title: str) -> None:
    layers = profile.columns
    for name, codes in _groups(profile.index).items():
        own, colour = profile.loc[codes], _COLOURS[name]
        axis.plot(layers, own.T, color=colour, linewidth=0.9, alpha=0.35)
        axis.plot(layers, own.mean(), color=colour, linewidth=3, linestyle=_LINES[name], label=name)
    axis.set(xlabel="layer", ylabel="divergence from English", xticks=list(layers), title=title)
    _legend(axis)


def _draw_clones(clones: Clones, axis: Axes) -> None:
    profile, learnt = clones.profiles(BASE), clones.learnt(BASE)
    axis.plot(profile[learnt], color=PALETTE[0], linewidth=0.9, alpha=0.35)
    means: dict[str, tuple[pd.DataFrame, dict[str, Any]]] = {
        "same text": (profile[learnt], {"color": PALETTE[0]}),
        "other text": (clones.profiles(BASE, "shuffled")[learnt], {"color": "grey", "linestyle": "--"}),
        "never read": (profile[clones.unread(BASE)], {"color": PALETTE[6], "linestyle": ":"}),
    }
    for name, (own, look) in means.items():
        axis.plot(own.mean(axis=1), linewidth=3, label=name, **look)
    axis.set(xlabel="layer", xticks=list(profile.index), title="clones of English")
    _legend(axis)


def _legend(axis: Axes) -> None:
    axis.legend(loc="lower left", ncols=1 if axis.get_title() else 3, fontsize=11, handlelength=2.4, columnspacing=1.2)


def _clone_finding(clones: Clones) -> str:
    """What the lines of clones show, as `_finding`."""
    learnt, models = clones.learnt(BASE), len(clones.made[BASE])
    first, middle, last = _ends(clones.profiles(BASE)[learnt].mean(axis=1).to_numpy())
    _, null, _ = _ends(clones.profiles(BASE, "shuffled")[learnt].mean(axis=1).to_numpy())
    return (
        f"clones of English, which differ in nothing but their words and the amount of text (mean over {len(learnt)} "
        f"learnt clones and {models} models): {first:.2f} at first, {middle:.2f} in the middle, {last:.2f} at last; "
        f"dashed: another text of the same clone, {null:.2f} in the middle."
    )


def _finding(profile: pd.DataFrame) -> str:
    """What the lines show: the middle third against the first and the last sixth of the layers, as in claim R1."""
    first, middle, last = _ends(profile[~profile.index.isin(UNKNOWN)].mean().to_numpy())
    closer = "closer to" if middle < min(first, last) else "not closer to"
    told = f"Routing of other languages is {closer} that of English in the middle of the network than at both ends"
    return f"{told}: {first:.2f} at first, {middle:.2f} there, {last:.2f} at last (0: alike, 1: nothing shared)."


def _ends(profile: np.ndarray) -> tuple[float, float, float]:
    """Means over the first sixth of the layers, the middle third and the last sixth."""
    windows = depth_windows(len(profile))
    first, middle, last = (float(profile[windows[name]].mean()) for name in ("start", "middle", "end"))
    return first, middle, last


def _origin(history: History) -> str:
    seen, total = int(history.stats["tokens_seen"][-1]), int(history.config["train"]["tokens"])
    state = "at the end of its training" if history.result["finished"] else "in training"
    return (
        f"Record of the embedded model (run `{history.hash}`) {state}: probe after {seen / 1e6:.1f} of "
        f"{total / 1e6:.0f} million tokens, on the Universal Declaration of Human Rights."
    )
