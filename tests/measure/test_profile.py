import numpy as np
import pytest

from mechanism.measure.divergence import normalised_js
from mechanism.measure.profile import ProfileShape, contrasts, depth_windows, is_u_shaped
from mechanism.measure.statistics import ClusterBootstrap

shape = ProfileShape(ClusterBootstrap(n_boot=200))


@pytest.mark.parametrize(
    ("layers", "start", "middle", "end"),
    [
        (3, [0], [1], [2]),
        (8, [0], [3, 4], [7]),
        (12, [0, 1], [4, 5, 6, 7], [10, 11]),
        (16, [0, 1, 2], [5, 6, 7, 8, 9, 10], [13, 14, 15]),
    ],
)
def test_windows(layers, start, middle, end):
    found = {name: np.flatnonzero(mask).tolist() for name, mask in depth_windows(layers).items()}
    assert found == {"start": start, "middle": middle, "end": end}


def test_contrasts_of_known_profiles():
    line, u = np.arange(12) / 11, np.array([4, 4, 2, 2, 1, 1, 1, 1, 2, 2, 4, 4.0])
    weights = contrasts(12)
    assert np.isclose(weights.loc["slope"] @ line, 1)
    assert np.isclose(weights.loc["last_step"] @ line, 1 / 11)
    assert np.isclose(weights.loc["ends-middle"] @ line, 0)
    assert np.isclose(weights.loc["ends-middle"] @ u, 3)
    assert np.isclose(weights.loc["slope"] @ u, 0)
    differences = ["start-middle", "end-middle", "ends-middle", "slope", "last_step"]
    assert np.allclose(weights.loc[differences].sum(axis=1), 0)


def test_the_language_that_shares_the_middle_has_a_u_and_the_other_none(planted):
    q = {code: probs.swapaxes(1, 2).mean(-2) for code, probs in planted.probs.items()}
    sister, stranger = (shape(normalised_js(q["en"], q[code])) for code in ("sister", "stranger"))
    assert is_u_shaped(sister)
    assert sister.loc["ends-middle", "low"] > 0.1
    assert not is_u_shaped(stranger)
    assert stranger.loc["middle", "low"] > 3 * sister.loc["middle", "high"]


def test_missing_segments_are_left_out_and_their_clusters_not_counted():
    values = np.random.default_rng(0).random((6, 3))
    values[2:4] = np.nan
    found = shape(values, clusters=np.arange(6) // 2)
    assert (found["n"] == 2).all()
    assert np.isclose(found.loc["middle", "value"], np.nanmean(values[:, 1]))
    with pytest.raises(ValueError, match="no items"):
        shape(np.full((2, 3), np.nan))


def test_two_layers_have_no_middle():
    with pytest.raises(ValueError, match="three layers"):
        shape(np.zeros((4, 2)))
