"""Effects over seeds: planted ones are found with their interval, and absent ones are not."""

import numpy as np
import pytest
import xarray as xr

from mechanism.corpus.languages import TRAINED, UNKNOWN
from mechanism.study.r_multilingual.effects import Seeds, entropy_parts, language_means

LAYERS, SEGMENTS, EXPERTS = 8, 60, 16
U = np.array([0.4, 0.36, 0.3, 0.2, 0.2, 0.3, 0.36, 0.4])
FALL = np.linspace(2.6, 1.4, LAYERS)


def seeds(divergence=U, entropy=FALL, steeper=0.3, gain=0.3, apart=0.3, coupled=0.2, count=3) -> Seeds:
    """Runs whose languages have these profiles, with noise of seeds, languages and documents."""
    rng = np.random.default_rng(0)
    codes, parts = [*TRAINED[:10], *UNKNOWN], {}
    own = rng.normal(size=(len(codes), 1, 1))
    unknown = np.isin(codes, UNKNOWN)[:, None, None]
    document = np.repeat(rng.normal(size=(1, SEGMENTS // 2, 1)), 2, 1)
    for run in range(count):
        noise = 0.02 * rng.normal(size=(len(codes), SEGMENTS, LAYERS)) + 0.01 * document + 0.01 * rng.normal()
        quality = coupled * (own + 3 * unknown)[..., 0] + 0.02 * rng.normal(size=(len(codes), SEGMENTS))
        places = np.full(LAYERS + 1, 0.3)
        places[4:6] += gain
        steep = steeper * np.linspace(0, 1, LAYERS) * (np.arange(len(codes)) > 0)[:, None, None]
        data = {
            "divergence": divergence * (1 + apart * unknown) + 0.02 * own + noise,
            "entropy": entropy - steep + noise,
            "nll": 100 * np.exp(quality),
            "hits_centred": (rng.random((len(codes), SEGMENTS, LAYERS + 1)) < places).astype(float),
        }
        axes = {name: ("lang", "segment", "state" if name == "hits_centred" else "layer") for name in data}
        coords = {"lang": codes, "cluster": ("segment", np.arange(SEGMENTS) // 2)}
        found = xr.Dataset({n: (axes[n][: v.ndim], v) for n, v in data.items()}, coords)
        parts[f"seed{run}"] = {"udhr": found.assign_attrs(corpus="udhr", pivot="en", experts=EXPERTS)}
    return Seeds(parts, n_boot=300)


@pytest.fixture(scope="module")
def there() -> Seeds:
    return seeds()


@pytest.fixture(scope="module")
def absent() -> Seeds:
    line = np.linspace(0.4, 0.2, LAYERS)
    return seeds(divergence=line, entropy=np.full(LAYERS, 2.0), steeper=0.0, gain=0.0, apart=0.0, coupled=0.0)


def test_a_u_is_found_and_a_falling_line_is_none(there: Seeds, absent: Seeds):
    found = there.dip()
    assert found.low < 0.5 < found.high
    assert found.low > 0.3
    assert found.n == 3
    assert absent.dip().high < 0


def test_quality_that_goes_with_divergence(there: Seeds, absent: Seeds):
    found = there.correlation()
    assert found.high < -0.4
    assert found.null < 0
    assert found.low >= -1
    assert absent.correlation().low < 0 < absent.correlation().high


def test_the_weakest_part_of_a_fall_is_named(there: Seeds, absent: Seeds):
    found = there.falls()
    assert found.high < -0.3
    assert found.null < 0
    assert "fall beyond the pivot's -0.1" in found.note
    other = seeds(steeper=0.0).falls()
    assert other.high < -0.3
    assert other.null > 0, "English falls as steeply"
    assert abs(absent.falls().estimate) < 0.05


def test_strangers_are_told_from_known_languages(there: Seeds, absent: Seeds):
    found = there.apart()
    assert found.low < 0.3 < found.high
    assert found.null > 0
    assert absent.apart().low < 0 < absent.apart().high


def test_the_gain_of_the_middle_is_paired_and_chosen_on_other_documents(there: Seeds, absent: Seeds):
    assert there.gain().low > 0.15
    assert there.gain().high < 0.35
    assert absent.gain().estimate < 0.03, "the better end is taken off, the best state is chosen elsewhere"


def test_points_are_those_of_the_seeds(there: Seeds):
    points = there.points()
    assert list(points.index) == ["seed0", "seed1", "seed2"]
    assert points["R1"].mean() == pytest.approx(there.dip().estimate)
    assert points["R9"].mean() == pytest.approx(there.apart().estimate)
    assert set(points["lowest layer"]) <= {3, 4}


def test_means_over_documents_leave_out_what_a_language_lacks():
    values = np.arange(12.0).reshape(2, 3, 2)
    values[1, 2] = np.nan
    own = xr.DataArray(values, {"cluster": ("segment", [0, 0, 1])}, ("lang", "segment", "layer"))
    means = language_means(own, np.array([[1.0, 1], [2, 0], [0, 1]]))
    assert means[0, 0].tolist() == [2, 3]
    assert means[1, 1].tolist() == [7, 8]
    assert np.isnan(means[2, 1]).all()


def test_parts_of_a_fall_are_shares_of_the_largest_entropy():
    line = np.log(EXPERTS) * np.linspace(1, 0.5, LAYERS)
    fall, beyond, step = entropy_parts(line, np.full(LAYERS, 1.0), EXPERTS)
    assert (fall, beyond, step) == pytest.approx((-0.5, -0.5, -0.5 / 7))
