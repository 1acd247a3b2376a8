import numpy as np
import pytest

from mechanism.measure.statistics import ClusterBootstrap
from mechanism.measure.task_mean import TaskMean

mean = TaskMean(ClusterBootstrap(n_boot=2000))


def test_tasks_count_equally_whatever_their_size():
    values = {"long": np.ones(300), "short": np.zeros(3)}
    clusters = {name: np.arange(len(own)) for name, own in values.items()}
    found = mean(values, clusters)
    assert found.estimate == found.low == found.high == 0.5
    assert found.n == 303


def test_one_task_is_the_cluster_bootstrap():
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=60), np.repeat(np.arange(12), 5)
    assert mean({"only": values}, {"only": clusters}) == mean.bootstrap(values, clusters=clusters)


def test_interval_has_the_spread_of_independent_tasks():
    rng = np.random.default_rng(1)
    values = {name: rng.normal(size=400) for name in "abcd"}
    clusters = {name: np.arange(400) for name in "abcd"}
    draws = mean.draws(values, clusters)
    assert draws.std() == pytest.approx(np.sqrt(4 / 400) / 4, rel=0.15)


def test_whole_clusters_are_drawn():
    values = {"a": np.repeat([0.0, 1.0], 50)}
    wide = mean(values, {"a": np.repeat([0, 1], 50)})
    narrow = mean(values, {"a": np.arange(100)})
    assert (wide.low, wide.high) == (0, 1)
    assert narrow.high - narrow.low < 0.3


def test_nothing_is_no_mean():
    with pytest.raises(ValueError, match="no tasks"):
        mean({}, {})
    with pytest.raises(ValueError, match="no items"):
        mean({"a": np.empty(0)}, {"a": np.empty(0)})
