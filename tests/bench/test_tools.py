"""Tools side by side: the table says what was found, and a wrong tool would be found out."""

from contextlib import contextmanager

import pytest

from mechanism.bench import tools
from mechanism.bench.tool_checks import ABSENT, check_tools
from mechanism.bench.tool_kit import TOOLS, Seen, Tool

OWN = "mechanism, full"


@pytest.fixture(scope="module")
def checks():
    return check_tools(tools=("output_router_logits", "plain hooks", OWN)).set_index(["tool", "family"])


def test_ours_gives_what_the_experts_received_and_its_edit_acts_or_is_refused(checks):
    own = checks.loc[OWN]
    assert (own["selection"] == 1).all()
    assert (own["weights"] == 1).all()
    assert (own["padding"] == "left out").all()
    assert own["edit"].map(lambda text: text == "acts" or text.startswith("refused: layer 0")).all()


def test_logits_are_not_the_selection_where_a_bias_corrects_it(checks):
    for tool in ("output_router_logits", "plain hooks"):
        assert checks.loc[(tool, "olmoe"), ["selection", "weights"]].tolist() == [1, 1]
        assert checks.loc[(tool, "deepseek_v3"), "selection"] < 0.8
        assert checks.loc[(tool, "phimoe"), "weights"] == 0, "sparsemixer"
        assert (checks.loc[tool, "padding"] == "counted").all()
    assert (checks.loc["plain hooks", "edit"] == "no effect, no word").all()


def test_a_wrong_tool_is_found_out(monkeypatch):
    """Ours, with the experts of every token shifted by one, a weight off by a hundredth, or padding counted."""
    own = TOOLS[OWN]

    def broken(change):
        def watch(model):
            with own.watch(model) as run:
                yield lambda batch: [change(one) for one in run(batch)]

        return Tool(contextmanager(watch), own.forbid)

    wrong = {
        "selection": lambda one: Seen(one.logits, (one.index + 1) % 8, one.weight, one.counted),
        "weights": lambda one: Seen(one.logits, one.index, one.weight + 0.01, one.counted),
        "padding": lambda one: Seen(one.logits, one.index, one.weight),
    }
    for column, change in wrong.items():
        monkeypatch.setitem(TOOLS, column, broken(change))
        found = check_tools(("olmoe",), (column,)).iloc[0]
        assert found[column] in ("counted", pytest.approx(0, abs=0.2))
    monkeypatch.setitem(TOOLS, "idle", Tool(own.watch, lambda model, batch, site, expert: model(**batch)))
    assert check_tools(("olmoe",), ("idle",)).iloc[0]["edit"] == "no effect, no word"


def test_a_tool_that_is_not_installed_says_so(monkeypatch):
    monkeypatch.setitem(TOOLS, "gone", Tool(TOOLS[OWN].watch, package="no-such-package-of-anyone"))
    assert check_tools(("olmoe",), ("gone",)).iloc[0]["gives"] == ABSENT
    table = tools.bench_tools("embedded", 1, ("bare forward", "gone"), memory=False)
    assert table["version"].tolist() == ["", ABSENT]
    assert table["ratio"].tolist()[0] == 1


def test_every_tool_that_is_there_is_timed():
    names = ("bare forward", "plain hooks", "mechanism, streaming", OWN)
    table = tools.bench_tools("embedded", 6, names, memory=False)
    assert table["tool"].tolist() == list(names)
    assert (table["seconds"] > 0).all()
    assert (table["low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["high"]).all()
    with pytest.raises(ValueError, match="use embedded or wide"):
        tools.bench_tools("large")
