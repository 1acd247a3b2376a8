import numpy as np
import pytest
from scipy.stats import norm

from mechanism.measure.evidence import Evidence
from mechanism.measure.statistics import ClusterBootstrap, median_interval


def test_mean_and_interval_agree_with_normal_theory():
    x = np.random.default_rng(1).normal(2.0, 1.0, 400)
    found = ClusterBootstrap()(x)
    half = norm.ppf(0.975) * x.std(ddof=1) / 20
    assert np.isclose(found.estimate, x.mean())
    assert np.isclose(found.low, x.mean() - half, atol=0.02)
    assert np.isclose(found.high, x.mean() + half, atol=0.02)


def test_ratio_is_a_ratio_of_sums():
    found = ClusterBootstrap()(np.array([1.0, 3.0]), np.array([1.0, 1000.0]))
    assert np.isclose(found.estimate, 4 / 1001)


def test_clusters_widen_the_interval():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 20)
    x = rng.normal(size=20)[clusters] + 0.1 * rng.normal(size=400)
    alone, clustered = ClusterBootstrap()(x), ClusterBootstrap()(x, clusters=clusters)
    assert np.isclose(alone.estimate, clustered.estimate)
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)
    assert (alone.n, clustered.n) == (400, 20), "n counts what is resampled"


def test_coverage_is_about_nominal():
    rng = np.random.default_rng(0)
    bootstrap = ClusterBootstrap(n_boot=300)
    inside = [e.low <= 0 <= e.high for e in (bootstrap(rng.normal(size=60)) for _ in range(200))]
    assert 0.88 <= np.mean(inside) <= 0.99


def test_seed_decides_and_no_data_is_an_error():
    x = np.random.default_rng(0).normal(size=30)
    assert ClusterBootstrap(seed=1)(x) == ClusterBootstrap(seed=1)(x)
    with pytest.raises(ValueError, match="no items"):
        ClusterBootstrap()(np.array([]))


def test_the_interval_of_a_median_covers_it_and_is_made_of_values():
    rng = np.random.default_rng(0)
    drawn = [median_interval(rng.exponential(size=60)) for _ in range(400)]
    inside = np.mean([e.low <= np.log(2) <= e.high for e in drawn])
    assert 0.94 <= inside <= 1
    found = median_interval(np.arange(15.0))
    assert found == Evidence(7.0, 3.0, 11.0, 15), "the 4th and the 12th, Conover's table"
    with pytest.raises(ValueError, match="5 values"):
        median_interval(np.arange(5.0))
