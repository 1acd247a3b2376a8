"""Figures: languages keep their order and colours, outputs are the same bytes twice, interactive ones stand alone."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import plotly.graph_objects as go
import pytest
from matplotlib.colors import to_rgb

from mechanism.corpus.languages import LANGUAGES
from mechanism.report import figures

mpl.use("Agg")


def luminance(colour: str) -> float:
    """Relative luminance, as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_languages_are_ordered_by_resource_class():
    ordered = figures.order_languages(["xx", "sw", "om", "en", "hi", "de"])
    assert ordered == ["en", "de", "hi", "om", "sw", "xx"]
    classes = [figures.RESOURCES.index(figures.resource_class(code)) for code in figures.order_languages(LANGUAGES)]
    assert classes == sorted(classes)


def test_colours_differ_and_do_not_depend_on_the_order_asked_for():
    colours = figures.language_colours(LANGUAGES)
    assert len(set(colours.values())) == len(LANGUAGES)
    assert figures.language_colours(reversed(LANGUAGES)) == colours


def test_resource_colours_stand_out_on_white():
    for colour in figures.RESOURCE_COLOURS.values():
        assert 1.05 / (luminance(colour) + 0.05) >= 3


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
    assert shown.html() == page
    assert not plt.get_fignums()


def test_interactive_figure_needs_words():
    figure, _ = plt.subplots()
    with pytest.raises(ValueError, match="needs an alternative text"):
        figures.interactive(go.Figure(), "curve", " ", figure)
    plt.close(figure)
