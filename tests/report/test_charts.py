"""Charts draw what their tables say: labels, values and bounds; what has no number is left out."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from mechanism.report import charts
from mechanism.report.axes import WIDEST, apart
from mechanism.report.figures import PALETTE, RESOURCE_LINES, language_colours, smallest, use_style

mpl.use("Agg")
BOUNDS = ["estimate", "low", "high"]
LANGUAGES = pd.DataFrame(
    [[0.2, 0.1, 0.4], [0.5, 0.4, 0.6], [np.nan] * 3], pd.Index(["sw", "en", "de"], name="lang"), BOUNDS
)
CURVES = pd.DataFrame({"main": [3.0, 2.0, 1.0], "tiny": [4.0, 3.5, np.nan]}, index=[0, 1_000_000, 2_000_000])


@pytest.fixture(autouse=True)
def closed():
    with plt.rc_context():
        use_style()
        yield
    plt.close("all")


def only(figure: Figure) -> Axes:
    (axis,) = figure.axes
    return axis


def labels(axis: Axes) -> list[str]:
    return list(axis.get_legend_handles_labels()[1])


def legend(owner: Axes | Figure) -> list[str]:
    found = owner.get_legend() if isinstance(owner, Axes) else next(iter(owner.legends), None)
    return [text.get_text() for text in found.get_texts()] if found else []


def ends(line: Line2D) -> tuple[list[float], list[float]]:
    """Both coordinates of a line's points."""
    x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
    return x.tolist(), y.tolist()


def segments(axis: Axes) -> list[tuple[list[float], list[float]]]:
    """Lines with two ends."""
    return [ends(line) for line in axis.lines if len(ends(line)[0]) == 2]


def dots(axis: Axes, marker: str = "o") -> list[tuple[float, float]]:
    found = [line for line in axis.lines if line.get_marker() == marker and line.get_linestyle() == "None"]
    return [spot for line in found for spot in zip(*ends(line), strict=True)]


def names(axis: Axes, side: str = "y") -> list[str]:
    return [tick.get_text() for tick in getattr(axis, f"get_{side}ticklabels")()]


def test_lines_are_the_columns_and_gaps_stay_gaps():
    axis = only(charts.lines(CURVES, ylabel="loss"))
    assert legend(axis) == ["main", "tiny"]
    assert axis.get_ylabel() == "loss"
    main, tiny = axis.lines
    np.testing.assert_array_equal(main.get_data(), [CURVES.index, CURVES["main"]])
    np.testing.assert_array_equal(tiny.get_data(), [CURVES.index[:2], CURVES["tiny"][:2]])
    assert [line.get_color() for line in axis.lines] == list(PALETTE[:2])


def test_a_band_ends_at_the_bounds_and_a_line_without_them_has_none():
    table = LANGUAGES.dropna().set_axis(pd.Index([1, 2], name="layer"))
    both = pd.concat({"steered": table, "chance": table["low"]}, axis=1, names=["kind"])
    axis = only(charts.lines(both, styles={"chance": charts.CHANCE}))
    (band,) = axis.collections
    corners = {tuple(point) for point in np.asarray(band.get_paths()[0].vertices).tolist()}
    assert {(1, 0.1), (1, 0.4), (2, 0.4), (2, 0.6)} <= corners
    assert ends(axis.lines[0])[1] == [0.2, 0.5]
    assert (axis.lines[1].get_color(), axis.lines[1].get_linestyle()) == ("black", "--")
    assert axis.get_xlabel() == "layer"
    assert axis.get_xticks().tolist() == [1, 2]
    found = axis.get_legend()
    assert found is not None
    assert found.get_title().get_text() == "kind"


def test_a_single_point_is_drawn_with_its_bounds_upright():
    point = pd.DataFrame(
        {("random", "estimate"): [1.0], ("random", "low"): [0.5], ("random", "high"): [2.0]}, index=[3.0]
    )
    figure = charts.lines(point, styles={"random": charts.NULL})
    (bar,) = only(figure).collections
    assert np.asarray(bar.get_paths()[0].vertices).tolist() == [[3.0, 0.5], [3.0, 2.0]]


def test_an_array_with_bounds_is_drawn_by_language():
    values = np.arange(18.0).reshape(3, 3, 2)
    values[2] = np.nan
    dims = ("lang", "bound", "layer")
    array = xr.DataArray(values, {"lang": ["sw", "en", "de"], "bound": ["value", "low", "high"], "layer": [3, 5]}, dims)
    table = charts.bounds(array, "layer")
    assert table["en", "high"].tolist() == [10, 11]
    axis = only(charts.lines(table))
    assert labels(axis) == ["en", "sw"], "most training text first; what is not known is left out"
    colours = language_colours(["en", "sw"])
    assert [line.get_color() for line in axis.lines] == [colours["en"], colours["sw"]]
    assert [line.get_linestyle() for line in axis.lines] == [RESOURCE_LINES["high"], RESOURCE_LINES["unknown"]]
    plain = charts.bounds(array.sel(bound="low"), "layer")
    assert (plain.columns.name, plain["sw"].tolist()) == ("lang", [2, 3])


def test_languages_are_named_at_the_ends_of_their_lines():
    table = pd.DataFrame([[0.1, 0.2, 0.2], [0.5, 0.3, 0.3]], columns=pd.Index(["sw", "en", "de"], name="lang"))
    axis = only(charts.lines(table))
    assert axis.get_legend() is None
    spots = {text.get_text(): (text.xy, text.xyann[1] + 50 * text.xy[1]) for text in axis.texts}  # type: ignore[attr-defined]
    assert {name: spot for name, (spot, _) in spots.items()} == {"en": (1, 0.3), "de": (1, 0.3), "sw": (1, 0.5)}
    assert spots["en"][1] < spots["de"][1] or spots["de"][1] < spots["en"][1]
    assert [legend(only(charts.lines(table, legend="")))] == [[]]
    assert not only(charts.lines(table, legend="")).texts


def test_names_stand_apart_in_panels_that_share_an_axis():
    near = pd.DataFrame([[0.1, 0.11, 0.12], [0.2, 0.21, 0.22]], columns=pd.Index(["sw", "en", "de"], name="lang"))
    figure = charts.panels(charts.lines, {"near": near, "far": 20 * near})
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = sorted((Text.get_window_extent(text) for text in axis.texts), key=lambda box: box.y0)
        assert len(boxes) == 3
        assert all(upper.y0 >= lower.y1 - 3 for lower, upper in itertools.pairwise(boxes))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(0.1, 20))
def test_names_move_apart_and_no_more(places: list[float], least: float):
    given = np.array(places)
    moved = apart(given, least)
    order = np.argsort(given, kind="stable")
    assert (np.diff(moved[order]) >= least * (1 - 1e-6)).all()
    assert np.isclose(moved.mean(), given.mean(), atol=1e-6)
    if (np.diff(given[order]) >= least).all():
        np.testing.assert_allclose(moved, given, atol=1e-6)


def test_figures_can_be_read_on_a_phone():
    wide = pd.DataFrame(np.ones((3, 4)), columns=list("abcd"))
    drawn = [
        charts.lines(CURVES, size=(9.0, 4.0)),
        charts.panels(charts.lines, dict.fromkeys("abcde", CURVES), size=(3.8, 3.8)),
        charts.panels(charts.heat, {"a": wide, "b": wide}, size=(5.0, 3.0)),
        charts.forest(LANGUAGES),
    ]
    assert [figure.get_figwidth() <= WIDEST for figure in drawn] == [True] * 4
    assert min(map(smallest, drawn)) >= 9
    grid = [axis.get_subplotspec() for axis in drawn[1].axes[:5]]
    assert [(spec.rowspan.start, spec.colspan.start) for spec in grid if spec] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
        (2, 0),
    ]


def test_numbers_go_from_dark_to_light():
    table = pd.DataFrame(np.ones((2, 3)), columns=pd.Index([0, 4, 7], name="layer"))
    axis = only(charts.lines(table))
    assert legend(axis) == ["0", "4", "7"]
    shades = [sum(mpl.colors.to_rgb(line.get_color())) for line in axis.lines]
    assert shades == sorted(shades)
    assert shades[0] < shades[2]


def test_many_lines_have_their_legend_outside():
    figure = charts.lines(pd.DataFrame(np.ones((2, 12)), columns=list("abcdefghijkl")))
    assert legend(only(figure)) == []
    assert legend(figure) == list("abcdefghijkl")
    assert legend(charts.lines(CURVES, legend="")) == []


def test_reference_and_threshold_stand_where_they_are_said_to():
    axis = only(charts.lines(CURVES, reference=0.25, threshold=0.3))
    across, upright = axis.lines[2:]
    assert ends(across)[1] == [0.25, 0.25]
    assert ends(upright)[0] == [0.3, 0.3]


def test_tokens_are_shown_in_millions():
    axis = only(charts.over_tokens(CURVES, ylabel="loss"))
    assert ends(axis.lines[0])[0] == [0, 1, 2]
    assert axis.get_xlabel() == "training tokens, millions"


def test_a_forest_has_a_row_for_each_language_in_the_reports_order():
    axis = only(charts.forest(LANGUAGES, reference=0.25, xlabel="accuracy"))
    assert names(axis) == ["en", "sw"]
    assert segments(axis)[:2] == [([0.1, 0.4], [1, 1]), ([0.4, 0.6], [0, 0])]
    assert dots(axis) == [(0.2, 1), (0.5, 0)]
    low, high = axis.get_ylim()
    assert low > high, "the first row is on top"
    assert ends(axis.lines[-1])[0] == [0.25, 0.25]
    assert same_color(axis.lines[0].get_color(), language_colours(["sw"])["sw"])


def test_an_estimate_may_have_another_name_and_no_interval():
    table = LANGUAGES.rename(columns={"estimate": "gain"}).rename_axis(None)
    table.loc["en", ["low", "high"]] = np.nan
    axis = only(charts.forest(table, colours={"en": "red"}))
    assert names(axis) == ["sw", "en"], "rows that are no languages keep their order"
    assert dots(axis) == [(0.2, 0), (0.5, 1)]
    assert segments(axis)[0] == ([0.1, 0.4], [0, 0])
    assert [line.get_color() for line in axis.lines[::2]] == [PALETTE[0], "red"]


def test_kinds_of_a_row_stand_side_by_side_in_their_colours():
    table = pd.DataFrame(
        [["domain", 1, 0, 2], ["driver", 3, np.nan, np.nan], ["domain", 5, 4, 6]], ["code", "code", "law"],
        ["kind", *BOUNDS],
    )  # fmt: skip
    axis = only(charts.forest(table, by="kind", colours={"driver": "red"}))
    assert names(axis) == ["code", "law"]
    assert legend(axis) == ["domain", "driver"]
    assert dots(axis) == [(1, -0.15), (5, 0.85), (3, 0.15)]
    assert {line.get_color() for line in axis.lines if line.get_label() == "driver"} == {"red"}
    alone = only(charts.forest(table.iloc[1:], by="kind"))
    assert dots(alone) == [(3, 0), (5, 1)], "rows of one kind each stay in the middle"


def test_points_and_nulls_of_a_row():
    table = pd.DataFrame([[1, 0, 2, 0.5], [np.nan] * 4, [np.nan] * 4], ["a", "b", "c"], [*BOUNDS, "null"])
    points = pd.DataFrame([[7, 8, np.nan], [9, 9, 9]], index=["a", "b"]).rename_axis(columns="theirs")
    axis = only(charts.forest(table, points=points, cross=True, null=True))
    assert names(axis) == ["a", "b"], "a row has an estimate or points"
    assert dots(axis) == [(1, 0)]
    assert dots(axis, "|") == [(0.5, 0)]
    assert dots(axis, "x") == [(7, 0.3), (8, 0.3), *[(9, 1.3)] * 3]
    assert legend(axis) == ["ours", "theirs"]
    many = only(charts.forest(table, points=pd.DataFrame(np.ones((1, 20)), index=["a"])))
    assert len({y for x, y in dots(many) if x == 1 and y}) == 20, "many points are spread out"


def test_a_map_writes_its_numbers_and_leaves_unknown_cells_empty():
    table = pd.DataFrame([[1, -2.5], [np.nan, 0.5]], ["de", "fr"], pd.Index([0, 1], name="layer"))
    strong = pd.DataFrame([[True, False], [True, False]])
    figure = charts.heat(table, texts=".1f", strong=strong, diverging=True, bar="change")
    axis, bar = figure.axes
    assert [text.get_text() for text in axis.texts] == ["1.0", "-2.5", "0.5"]
    assert [text.get_fontweight() for text in axis.texts] == ["bold", "normal", "normal"]
    assert axis.collections[0].get_clim() == (-2.5, 2.5)
    assert bar.get_ylabel() == "change"
    assert (names(axis), names(axis, "x"), axis.get_xlabel()) == (["de", "fr"], ["0", "1"], "layer")
    drawn = np.ma.filled(np.ma.asarray(axis.collections[0].get_array()), np.nan)
    np.testing.assert_array_equal(drawn, table)


def test_a_map_with_words_in_its_cells_and_given_limits():
    table = pd.DataFrame([[1, 2]], ["a"], ["x", "y"])
    axis = only(charts.heat(table, texts=pd.DataFrame([["*", ""]]), limits=(0, None), bar=None))
    assert [text.get_text() for text in axis.texts] == ["*", ""]
    assert axis.collections[0].get_clim() == (0, 2)
    zeros = charts.heat(table * 0, diverging=True).axes[0]
    assert zeros.collections[0].get_clim() == (-1, 1)


def test_points_are_coloured_by_name_or_by_number_and_some_are_ringed():
    table = pd.DataFrame({"x": [1, 2, 3], "y": [4, 5, 6], "domain": ["a", "b", "a"], "driver": [False, True, False]})
    axis = only(charts.scatter(table, "x", "y", by="domain", ring="driver", yscale="log"))
    assert [ends(line)[0] for line in axis.lines] == [[1, 3], [2]]
    assert np.asarray(axis.collections[0].get_offsets()).tolist() == [[2, 5]]
    assert legend(axis) == ["a", "b", "driver"]
    assert (axis.get_xlabel(), axis.get_yscale()) == ("x", "log")
    shaded, bar = charts.scatter(table.assign(layer=[0, 1, 2]), "x", "y", by="layer").axes
    assert bar.get_ylabel() == "layer"
    assert np.asarray(shaded.collections[0].get_array()).tolist() == [0, 1, 2]


def test_languages_are_named_beside_their_points():
    table = LANGUAGES.assign(size=[1.0, 3.0, 2.0], unseen=[True, False, False])
    axis = only(charts.language_scatter(table, "size", "estimate", other="unseen", marker="x", slope=0.5, reference=0))
    assert {text.get_text(): text.xy for text in axis.texts} == {"sw": (1, 0.2), "en": (3, 0.5)}  # type: ignore[attr-defined]
    assert segments(axis)[:2] == [([3, 3], [0.4, 0.6]), ([1, 1], [0.1, 0.4])]
    assert [line.get_marker() for line in axis.lines if line.get_marker() not in ("None", "")] == ["o", "x"]
    (fitted,) = (line for line in axis.lines if line.get_color() == "grey")
    assert ends(fitted)[0] == [1, 3]
    assert ends(fitted)[1] == pytest.approx([-0.15, 0.85]), "a line through the means"


def test_names_of_points_that_lie_together_do_not_cover_one_another():
    table = pd.DataFrame({"x": [1, 1.01, 1, 9], "y": [1, 1, 1.02, 9]}, index=["en", "de", "fr", "es"])
    figure = charts.language_scatter(table, "x", "y")
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in only(figure).texts]
    assert len(boxes) == 4
    assert not [1 for i, box in enumerate(boxes) for other in boxes[:i] if box.overlaps(other)]


def test_bars_are_named_in_full_and_ordered():
    axis = only(charts.bars(LANGUAGES["estimate"], reference=1, xlabel="share"))
    assert names(axis) == ["English (en)", "Swahili (sw)"]
    assert [patch.get_width() for patch in axis.patches] == [0.5, 0.2]  # type: ignore[attr-defined]
    assert ends(axis.lines[0])[0] == [1, 1]


def test_parts_of_a_bar_are_stacked():
    table = pd.DataFrame({"code": [1, 2], "law": [3, 4]}, index=pd.Index([0, 3], name="layer"))
    figure = charts.stacked(table, ylabel="experts")
    axis = only(figure)
    assert [(p.get_y(), p.get_height()) for p in axis.patches] == [(0, 1), (0, 2), (1, 3), (2, 4)]  # type: ignore[attr-defined]
    assert (names(axis, "x"), axis.get_xlabel(), legend(figure)) == (["0", "3"], "layer", ["code", "law"])


def test_panels_name_their_tables_and_share_what_they_are_told_to():
    figure = charts.panels(charts.lines, {"a": CURVES, "b": CURVES + 9}, ylabel="loss", own={"b": {"reference": 5}})
    left, right = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert (left.get_ylabel(), right.get_ylabel()) == ("loss", "")
    assert left.get_ylim() == right.get_ylim()
    assert (len(left.lines), len(right.lines)) == (2, 3)
    assert [legend(axis) for axis in figure.axes] == [["main", "tiny"]] * 2
    apart = charts.panels(charts.lines, {"a": CURVES, "b": CURVES + 9}, names="ylabel", share="", legend="first")
    assert [axis.get_ylabel() for axis in apart.axes] == ["a", "b"]
    assert [legend(axis) for axis in apart.axes] == [["main", "tiny"], []]


def test_a_panel_of_each_quantity_has_a_line_of_each_table():
    first = pd.DataFrame([[1, 2, 3, 9], [2, 3, 4, 8]], columns=["bits", "bits_low", "bits_high", "loss"])
    columns: dict[str, str | list[str]] = {"change": ["bits", "bits_low", "bits_high"], "loss, nats": "loss"}
    figure = charts.quantities({"domain": first, "driver": first + 1}, columns, reference=0)
    left, right = figure.axes
    assert [axis.get_ylabel() for axis in figure.axes] == ["change", "loss, nats"]
    assert [ends(line)[1] for line in right.lines[:2]] == [[9, 8], [10, 9]]
    assert (len(left.collections), len(right.collections)) == (2, 0)
    assert [legend(axis) for axis in figure.axes] == [["domain", "driver"], []]


def test_one_legend_of_all_panels_has_what_any_of_them_shows():
    figure = charts.panels(charts.lines, {"a": CURVES[["main"]], "b": CURVES[["tiny"]]}, legend="outside")
    assert legend(figure) == ["main", "tiny"]
    assert [legend(axis) for axis in figure.axes] == [[], []]


def test_one_colour_bar_of_all_maps():
    table = pd.DataFrame([[1, 2]], ["en"])
    figure = charts.panels(charts.heat, {"a": table, "b": table}, limits=(0, 3), bar="share")
    assert [axis.get_ylabel() for axis in figure.axes] == ["", "", "share"]
    assert {axis.collections[0].get_clim() for axis in figure.axes[:2]} == {(0, 3)}


def test_charts_side_by_side_are_drawn_on_the_axes_that_are_given():
    figure, (left, right) = plt.subplots(1, 2)
    assert charts.lines(CURVES, axis=left) is figure
    assert charts.forest(LANGUAGES, axis=right) is figure
    assert (len(left.lines), names(right)) == (2, ["en", "sw"])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: charts.lines(pd.DataFrame()),
        lambda: charts.lines(CURVES * np.nan),
        lambda: charts.forest(LANGUAGES.iloc[2:]),
        lambda: charts.heat(CURVES * np.nan),
        lambda: charts.scatter(CURVES.iloc[:0].assign(by=""), "main", "tiny", by="by"),
        lambda: charts.language_scatter(LANGUAGES.iloc[2:], "low", "high"),
        lambda: charts.bars(LANGUAGES["estimate"].iloc[2:]),
        lambda: charts.stacked(CURVES * np.nan),
        lambda: charts.panels(charts.lines, {}),
    ],
)
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(ValueError, match="nothing to draw"):
        draw()


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (lambda: charts.forest(LANGUAGES[["estimate", "low"]]), "estimate, low and high; the table has estimate, low"),
        (lambda: charts.forest(LANGUAGES[["low", "high"]]), "needs columns estimate"),
        (lambda: charts.lines(pd.concat({"a": CURVES}, axis=1)), "the table has main, tiny"),
        (lambda: charts.scatter(CURVES, "main", "loss", by="run"), "lacks loss, run; it has main, tiny"),
        (lambda: charts.language_scatter(LANGUAGES, "low", "gap"), "lacks gap"),
    ],
)
def test_a_table_without_its_columns_is_told_what_it_lacks(draw, told):
    with pytest.raises(ValueError, match=told):
        draw()
