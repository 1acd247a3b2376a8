"""The numbers behind tables and figures: all of them, in full, readable by pandas."""

import base64
import io
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from mechanism.report import behind, charts
from mechanism.report.tables import page_table

mpl.use("Agg")
CURVES = pd.DataFrame({"main": [3.0, 2.0], "tiny": [4.0, np.nan]}, index=pd.Index([0, 1], name="layer"))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def read(html: str) -> tuple[list[str], pd.DataFrame]:
    """Head and table of the one link of a text."""
    (content,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', html)
    text = base64.b64decode(content).decode()
    return [line for line in text.splitlines() if line.startswith("#")], pd.read_csv(io.StringIO(text), comment="#")


def test_a_table_offers_all_its_digits_and_says_where_they_are_from(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MECHANISM_NOTEBOOK", "10_routing_by_language")
    monkeypatch.setitem(behind.ABOUT, "model", "embedded")
    table = pd.DataFrame({"mean": [1 / 3, 2 / 3]}, index=pd.Index(["en", "sw"], name="lang"))
    head, found = read(page_table(table, 1)._repr_html_())
    assert head[0] == "# page: 10_routing_by_language"
    assert re.fullmatch(r"# code: [0-9a-f]{12}", head[1])
    assert head[2] == "# model: embedded"
    pd.testing.assert_frame_equal(found, table.reset_index())


def test_an_index_that_is_not_shown_is_not_offered():
    table = pd.DataFrame({"n": [1, 2]}, index=["a", "b"])
    assert list(read(page_table(table, index=False)._repr_html_())[1]) == ["n"]
    assert list(read(page_table(table)._repr_html_())[1]) == ["name", "n"]


def test_names_of_several_levels_become_one():
    table = pd.concat({"sw": pd.DataFrame({"low": [0.1]}), "": pd.DataFrame({"n": [3]})}, axis=1)
    assert list(behind.flat(table)) == ["sw low", "n"]
    index = pd.MultiIndex.from_tuples([("en", 1)], names=["lang", None])
    assert list(behind.flat(pd.DataFrame({"lang": ["again"]}, index=index))) == ["name", "lang"]


def test_a_figure_offers_what_its_charts_draw():
    pd.testing.assert_frame_equal(behind.drawn(charts.lines(CURVES)), CURVES.reset_index())
    both = behind.drawn(charts.panels(charts.lines, {"first": CURVES, "second": CURVES + 1}))
    assert both["panel"].tolist() == ["first"] * 2 + ["second"] * 2
    assert both["main"].tolist() == [3.0, 2.0, 4.0, 3.0]


def test_a_figure_without_charts_offers_nothing():
    assert behind.drawn(plt.figure()).empty
