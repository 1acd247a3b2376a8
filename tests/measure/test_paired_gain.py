import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp

from mechanism.measure.paired_gain import PairedGain, group_weighted
from mechanism.measure.statistics import ClusterBootstrap

paired = PairedGain(ClusterBootstrap(n_boot=1000), n_perm=4000)


def hits(rate, shape=(3, 60), seed=0):
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.float64)


def test_the_gain_is_the_mean_of_the_languages_means():
    base, edited = hits(0.3), hits(0.6, seed=1)
    base[1, :50] = edited[1, :50] = np.nan
    found = paired(base, edited)
    assert np.isclose(found.gain.estimate, (np.nanmean(edited, 1) - np.nanmean(base, 1)).mean())
    assert found.gain.low < found.gain.estimate < found.gain.high
    assert (found.clusters, found.items) == (60, 60)


def test_p_is_that_of_scipy():
    base, edited = hits(0.3, (1, 40)), hits(0.45, (1, 40), 1)
    oracle = permutation_test(
        ((edited - base)[0],), np.mean, permutation_type="samples", n_resamples=4000, rng=np.random.default_rng(0)
    )
    assert abs(paired(base, edited).p - oracle.pvalue) < 0.02


def test_parallel_items_are_one_unit():
    base, edited = hits(0.3, (1, 40)), hits(0.4, (1, 40), 1)
    once, copied = paired(base, edited), paired(np.tile(base, (5, 1)), np.tile(edited, (5, 1)))
    assert np.allclose(once.gain[:4], copied.gain[:4])
    assert once.p == copied.p, "five copies of a language are no more evidence than one"


def test_clusters_flip_and_are_drawn_together():
    base, edited = np.zeros((1, 40)), np.zeros((1, 40))
    edited[0, :10] = 1
    alone, together = paired(base, edited), paired(base, edited, np.arange(40) // 10)
    assert alone.p < 0.01
    assert (together.clusters, together.items, together.p) == (4, 40, 1.0)
    assert together.gain.low == 0
    assert together.needed(together.detectable / 2) == pytest.approx(160, abs=1), "items are needed, not clusters"


def test_nothing_changed():
    base = hits(0.3)
    found = paired(base, base)
    assert (found.gain.estimate, found.p, found.detectable) == (0, 1, 0)


def test_power_is_what_simulation_finds():
    found = paired(hits(0.4, (1, 400)), hits(0.5, (1, 400), 3))
    spread = np.std(hits(0.5, (1, 400), 3) - hits(0.4, (1, 400)))
    rng = np.random.default_rng(0)
    p = ttest_1samp(rng.normal(found.detectable, spread, (1000, 400)), 0, axis=1).pvalue
    assert 0.7 < (p < 0.05).mean() < 0.9
    assert found.needed(found.detectable / 2) == pytest.approx(1600, abs=1)


def test_a_group_without_items_is_refused():
    values = np.ones((2, 5))
    values[1] = np.nan
    with pytest.raises(ValueError, match="no item at all"):
        group_weighted(values)
    with pytest.raises(ValueError, match="there is no group"):
        apart(np.empty((0, 5)), np.empty((0, 5)))


apart = PairedGain(ClusterBootstrap(n_boot=2000), parallel=False)


def rows(**groups):
    """Changes of groups that share no item, `(group, item)`."""
    found = np.full((len(groups), sum(map(len, groups.values()))), np.nan)
    start = 0
    for row, own in zip(found, groups.values(), strict=True):
        row[start : start + len(own)] = own
        start += len(own)
    return found


def test_groups_count_equally_whatever_their_size():
    change = rows(long=np.ones(300), short=np.zeros(3))
    found = apart(np.zeros_like(change), change)
    assert found.gain.estimate == found.gain.low == found.gain.high == 0.5
    assert (found.gain.n, found.items) == (303, 303)


def test_one_group_is_the_cluster_bootstrap():
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=60), np.repeat(np.arange(12), 5)
    expected = apart.bootstrap(values, clusters=clusters)
    assert np.allclose(apart(np.zeros((1, 60)), values[None], clusters).gain[:4], expected[:4])


def test_interval_has_the_spread_of_independent_groups():
    rng = np.random.default_rng(1)
    change = rows(**{name: rng.normal(size=400) for name in "abcd"})
    assert apart(np.zeros_like(change), change).draws.std() == pytest.approx(np.sqrt(4 / 400) / 4, rel=0.15)


def test_clusters_of_one_label_in_two_groups_are_two():
    change = rows(a=np.repeat([0.0, 1.0], 50), b=np.repeat([1.0, 0.0], 50))
    wide = apart(np.zeros_like(change), change, np.tile(np.repeat([0, 1], 50), 2))
    assert (wide.gain.low, wide.gain.high, wide.clusters) == (0, 1, 4)
    assert np.ptp(apart(np.zeros_like(change), change).gain[1:3]) < 0.3
