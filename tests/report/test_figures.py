"""Figures: languages keep their order and colours, outputs are the same bytes twice, interactive ones stand alone."""

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
from matplotlib.colors import to_rgb

from mechanism.corpus.languages import LANGUAGES
from mechanism.report import figures

mpl.use("Agg")
# Sight by kind of cones: Machado, Oliveira and Fernandes (2009), Table 1 at full severity.
# fmt: off
SIGHTS = {
    "full": np.eye(3),
    "no red": np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]]),
    "no green": np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]]),
    "no blue": np.array([[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]]),
}
# CIE XYZ of linear red, green and blue, D65.
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
# fmt: on


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_languages_are_ordered_by_resource_class():
    ordered = figures.order_languages(["xx", "sw", "om", "en", "hi", "de"])
    assert ordered == ["en", "de", "hi", "om", "sw", "xx"]
    classes = [figures.RESOURCES.index(figures.resource_class(code)) for code in figures.order_languages(LANGUAGES)]
    assert classes == sorted(classes)


def lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as it looks to somebody whose sight is the matrix, over linear red, green and blue."""
    rgb = np.array(to_rgb(colour))
    linear = np.clip(sight @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    x, y, z = np.cbrt(np.maximum(XYZ @ linear / np.array([0.95047, 1, 1.08883]), 1e-6))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colours_differ_and_do_not_depend_on_what_is_asked_for():
    colours = figures.language_colours(LANGUAGES)
    assert len(set(colours.values())) == len(LANGUAGES)
    assert figures.language_colours(reversed(LANGUAGES)) == colours
    assert figures.language_colours(["sw", "de"]) == {code: colours[code] for code in ("de", "sw")}
    assert set(figures.FAMILY_COLOURS) == {language.family for language in LANGUAGES.values()}
    assert len(figures.language_colours(["xx", "yy"])) == 2


@pytest.mark.parametrize("sight", SIGHTS)
def test_families_can_be_told_apart_without_full_colour_sight(sight: str):
    shown = [lab(colour, SIGHTS[sight]) for colour in figures.FAMILY_COLOURS.values()]
    nearest = min(np.linalg.norm(one - other) for one, other in itertools.combinations(shown, 2))
    assert nearest > 14


def test_families_stand_out_on_white():
    for colour in (*figures.FAMILY_COLOURS.values(), figures.OTHER_COLOUR):
        assert 1.05 / (luminance(colour) + 0.05) >= 2.9


def test_labels():
    assert figures.language_label("sw") == "Swahili (sw)"
    assert figures.language_label("xx") == "xx"


def test_same_figure_is_the_same_bytes():
    with plt.rc_context():
        figures.use_style()
        images = []
        for _ in range(2):
            figure, ax = plt.subplots()
            ax.plot([0, 1], label="a")
            images.append(figures.png(figure))
            figures.show(figure)
    assert images[0] == images[1]
    assert not plt.get_fignums()


def test_interactive_figure_has_its_static_twin_and_no_script_source():
    static, _ = plt.subplots()
    shown = figures.interactive(go.Figure(go.Scatter(y=[1, 2])), "curve", 'rising "line"', static)
    bundle = shown._repr_mimebundle_()
    page = bundle["text/html"]
    assert bundle["text/plain"] == "<interactive figure curve>"
    assert 'id="curve"' in page
    assert 'aria-label="rising &quot;line&quot;"' in page
    assert '<noscript><img alt="rising &quot;line&quot;" src="data:image/png;base64,' in page
    assert "<script src" not in page
    assert "cdn" not in page
    assert shown.html == page
    assert not plt.get_fignums()


def test_interactive_figure_needs_words():
    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match="needs an alternative text"):
        figures.interactive(go.Figure(), "curve", " ", figure)
    plt.close(figure)


def test_a_figure_as_svg_is_what_matplotlib_draws(tmp_path: Path):
    figure, axis = plt.subplots()
    axis.plot([0, 1 / 3, 1], [0.1, 0.7, 0.2])
    drawn = figures.svg(figure)
    figure.savefig(tmp_path / "whole.svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    one, other = (list(ElementTree.fromstring(text).iter()) for text in (drawn, (tmp_path / "whole.svg").read_text()))
    assert "\n" not in drawn
    assert [element.tag for element in one] == [element.tag for element in other]
    for own, whole in zip(one, other, strict=True):
        assert own.attrib.keys() == whole.attrib.keys()
        for name in {"d", "x", "y"} & own.attrib.keys():
            ours, theirs = (np.array(re.findall(r"-?[\d.]+", each.attrib[name]), float) for each in (own, whole))
            np.testing.assert_allclose(ours, theirs, atol=0.01)
        for name in {"transform", "viewBox"} & own.attrib.keys():
            assert own.attrib[name] == whole.attrib[name]
