import numpy as np
import pytest

from mechanism.measure.profile import contrasts, depth_windows, dip


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


def test_a_dip_needs_both_ends():
    u = np.array([4, 4, 2, 2, 1, 1, 1, 1, 2, 2, 4, 4.0])
    assert dip(u) == pytest.approx(0.75)
    assert dip(3 * u) == pytest.approx(0.75), "a share has no unit"
    assert dip(np.ones(12)) == 0
    assert (dip(np.stack([np.arange(12.0) + 1, 12 - np.arange(12.0)])) < 0).all()
