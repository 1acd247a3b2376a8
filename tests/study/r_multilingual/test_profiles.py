import numpy as np
import pandas as pd
import pytest
import xarray as xr

from mechanism.measure.divergence import normalised_js
from mechanism.measure.profile import dip
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.study.r_multilingual.profiles import shapes
from tests.measure.conftest import planted  # noqa: F401  # a fixture


def profiles(values: np.ndarray, clusters: np.ndarray | None = None) -> pd.DataFrame:
    """`shapes` of the language `own`, whose profiles `(segment, layer)` these are."""
    segments, layers = values.shape
    documents = np.arange(segments) if clusters is None else clusters
    coords = {"lang": ["own"], "layer": np.arange(layers) + 1, "cluster": ("segment", documents)}
    return shapes(xr.DataArray(values[None], coords, ("lang", "segment", "layer")), ClusterBootstrap(n_boot=200))


def test_the_language_that_shares_the_middle_has_a_u_and_the_other_none(planted):  # noqa: F811
    q = {code: probs.swapaxes(1, 2).mean(-2) for code, probs in planted.probs.items()}
    sister, stranger = (profiles(normalised_js(q["en"], q[code])).loc["own"] for code in ("sister", "stranger"))
    depths = {code: dip(normalised_js(q["en"], q[code]).mean(0)) for code in ("sister", "stranger")}
    assert depths["sister"] > 0.5
    assert depths["stranger"] < 0
    assert sister.loc["ends-middle", "low"] > 0.1
    assert stranger.loc["middle", "low"] > 3 * sister.loc["middle", "high"]


def test_missing_segments_are_left_out_and_their_clusters_not_counted():
    values = np.random.default_rng(0).random((6, 3))
    values[2:4] = np.nan
    found = profiles(values, clusters=np.arange(6) // 2).loc["own"]
    assert (found["n"] == 2).all()
    assert np.isclose(found.loc["middle", "value"], np.nanmean(values[:, 1]))
    assert profiles(np.full((2, 3), np.nan)).empty, "a language without segments has no rows"


def test_two_layers_have_no_middle():
    with pytest.raises(ValueError, match="three layers"):
        profiles(np.zeros((4, 2)))
