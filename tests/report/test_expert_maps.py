import json

import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

from mechanism.report.expert_maps import interactive_map, lift_map, lift_panels, static_maps


@pytest.fixture
def values() -> xr.DataArray:
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(3, 4, 5))
    cells[1, 2, 0] = np.nan
    coords = {"layer": [1, 3, 5], "expert": range(4), "domain": list("abcde")}
    return xr.DataArray(cells, coords, ("layer", "expert", "domain"))


def test_static_twin_has_a_panel_for_each_domain_in_the_models_own_layers(values: xr.DataArray):
    figure = static_maps(values, "lift", 2.0)
    shown = [axis for axis in figure.axes if axis.images and axis.get_title()]
    assert [axis.get_title() for axis in shown] == list("abcde")
    assert [tick.get_text() for tick in shown[0].get_yticklabels()] == ["1", "3", "5"]
    drawn = np.ma.filled(np.ma.asarray(shown[0].images[0].get_array()), np.nan)
    np.testing.assert_array_equal(drawn, values.sel(domain="a"))
    plt.close(figure)


def test_menu_shows_one_domain_at_a_time_and_cells_tell_what_is_behind_them(values: xr.DataArray):
    figure = interactive_map(values, "lift", 2.0, {"rate": values + 10})
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == list("abcde")
    for place, button in enumerate(buttons):
        assert list(button.args[0]["visible"]) == [i == place for i in range(5)]
    assert [trace.visible for trace in figure.data] == [True, False, False, False, False]
    assert figure.data[2].z[1][3] == pytest.approx(float(values.sel(domain="c")[1, 3]), abs=5e-4)
    assert figure.data[2].customdata[1][3][0] == pytest.approx(10 + float(values.sel(domain="c")[1, 3]), abs=5e-4)
    assert "rate %{customdata[0]" in figure.data[0].hovertemplate


def test_map_over_languages_tells_the_tokens_behind_a_cell(values: xr.DataArray):
    by_language = values.rename(domain="lang")
    words = xr.full_like(by_language, "", dtype=object)
    words[1, 3, 2] = "&lt;b&gt; ·the"
    figure = interactive_map(by_language, "lift", 2.0, {"rate": by_language}, {"tokens": words})
    assert "<br>tokens: %{customdata[1]}" in figure.data[2].hovertemplate
    assert figure.data[2].customdata[1][3][1] == "&lt;b&gt; ·the"
    panels = static_maps(xr.concat([by_language] * 2, "lang").assign_coords(lang=list("abcdefghij")), "lift", 2.0)
    grid = panels.axes[0].get_gridspec()
    assert grid is not None
    assert grid.ncols == 4
    plt.close(panels)


def test_what_is_not_known_is_no_number_in_json(values: xr.DataArray):
    payload = interactive_map(values, "lift", 2.0, {"rate": values}).to_json()
    assert "NaN" not in payload
    cell = json.loads(payload)["data"][0]
    assert cell["z"][1][2] is None
    assert cell["customdata"][1][2] == [None]
    assert len(payload) < 20_000


def test_marks_stand_on_their_cells_and_a_norm_takes_the_place_of_limits(values: xr.DataArray):
    norm = LogNorm(0.1, 1)
    of_expert = (values > 1).any("domain")
    figure = static_maps(abs(values), "", norm, of_expert, "o")
    rows, columns = np.nonzero(of_expert.values)
    assert len(figure.axes) == 6, "no colour bar"
    for axis in figure.axes[:5]:
        assert axis.images[0].norm is norm
        np.testing.assert_array_equal(axis.lines[0].get_data(), [columns, rows])
    by_domain = static_maps(values, "lift", 2.0, values > 1)
    np.testing.assert_array_equal(by_domain.axes[2].lines[0].get_data(), np.nonzero((values > 1).sel(domain="c"))[::-1])
    plt.close("all")


def test_lift_is_doublings_up_to_three_and_never_selected_is_unknown(values: xr.DataArray):
    lift = xr.full_like(values, 2.0)
    lift[0, 0, 0], lift[0, 1, 0] = 0, 5
    drawn = np.ma.filled(np.ma.asarray(lift_panels(lift).axes[0].images[0].get_array()), np.nan)
    assert np.isnan(drawn[0, 0])
    assert drawn[0, 1] == pytest.approx(np.log2(5))
    assert lift_panels(lift).axes[0].images[0].get_clim() == (-2.5, 2.5)
    assert lift_panels(lift * 100).axes[0].images[0].get_clim() == (-3, 3)
    page = lift_map(lift, {"rate": lift}, {}, "language-map", "language").html
    assert 'aria-label="Map of layers by experts, one language at a time' in page
    assert "than languages on average do" in page
    plt.close("all")
