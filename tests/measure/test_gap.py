import numpy as np
import pytest

from mechanism.measure.gap import GapSlope, RecoveredGap
from mechanism.measure.statistics import ClusterBootstrap

recovered = RecoveredGap(ClusterBootstrap(n_boot=300))


def test_half_of_a_gap():
    reference = np.ones(80)
    base = np.arange(80) % 5 == 0
    edited = base | (np.arange(80) % 5 < 3)
    found = recovered(base, edited, reference)
    assert np.isclose(found.gap.estimate, 0.8)
    assert np.isclose(found.gain.estimate, 0.4)
    assert np.isclose(found.share.estimate, 0.5)
    assert 0.3 < found.share.low < 0.5 < found.share.high < 0.7


def test_harm_is_negative_and_nothing_is_zero():
    base, reference = np.tile([0.0, 1.0], 30), np.ones(60)
    assert recovered(base, base, reference).share.estimate == 0
    assert recovered(base, np.zeros(60), reference).share.estimate == -1


def test_a_gap_that_may_be_nothing_has_no_share():
    scores = np.random.default_rng(0).integers(0, 2, (3, 40))
    found = recovered(*scores)
    assert found.gap.low <= 0
    assert np.isnan(found.share.estimate)
    assert found.share.n == 40


def test_scores_have_to_be_numbers():
    with pytest.raises(ValueError, match="not finite"):
        recovered(np.array([np.nan]), np.array([1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="no items"):
        recovered(*np.empty((3, 0)))


def scores(gaps, slope, noise, items=200, seed=0):
    """Languages `(lang, item)` on two sets of items: missing hits on the first, gained hits on the second."""
    rng = np.random.default_rng(seed)
    gaps = np.asarray(gaps)[:, None]
    missing = (rng.random((len(gaps), items)) < 0.9).astype(float) - (rng.random((len(gaps), items)) < 0.9 - gaps)
    gained = slope * gaps + noise * rng.normal(size=(len(gaps), items))
    return missing, gained


GAPS = np.linspace(0.05, 0.6, 12)


def test_a_planted_slope_is_found():
    found = GapSlope(n_boot=500)(*scores(GAPS, 0.3, 0.2))
    assert 0.2 < found.estimate < 0.35
    assert 0 < found.low < found.estimate < found.high
    assert found.n == 12
    missing, gained = scores(GAPS, 0.3, 0.2)
    assert np.isclose(found.estimate, np.polyfit(missing.mean(1), gained.mean(1), 1)[0])


def test_regression_to_the_mean_makes_no_slope_on_other_items():
    """All languages are alike and the edit does nothing: on the same items the slope is positive, on others not."""
    same, other = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base, edited, apart = (rng.random((3, 10, 30)) < 0.5).astype(float)
        same.append(GapSlope(n_boot=50)(1 - base, edited - base).estimate)
        other.append(GapSlope(n_boot=50)(1 - apart, edited - base).estimate)
    assert np.mean(same) > 0.5
    assert abs(np.mean(other)) < 0.15


def test_missing_items_are_left_out_of_both_sides():
    missing, gained = scores(GAPS, 0.3, 0.2)
    holes = missing.copy()
    holes[0, :150] = np.nan
    found = GapSlope(n_boot=100)(holes, gained)
    x = np.nanmean(holes, 1)
    assert np.isclose(found.estimate, np.polyfit(x, gained.mean(1), 1)[0])


def test_slopes_that_are_none():
    missing, gained = scores(GAPS, 0.3, 0.2)
    with pytest.raises(ValueError, match="needs three"):
        GapSlope()(missing[:2], gained[:2])
    with pytest.raises(ValueError, match="same gap"):
        GapSlope()(np.ones((4, 5)), gained[:4])
    missing[0] = np.nan
    with pytest.raises(ValueError, match="items on both sides"):
        GapSlope()(missing, gained)
