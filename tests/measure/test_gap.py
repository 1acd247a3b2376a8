import numpy as np
import pytest

from mechanism.measure.gap import RecoveredGap
from mechanism.measure.statistics import ClusterBootstrap

recovered = RecoveredGap(ClusterBootstrap(n_boot=300))


def test_half_of_a_gap():
    reference = np.ones(80)
    base = np.arange(80) % 5 == 0
    edited = base | (np.arange(80) % 5 < 3)
    found = recovered(base, edited, reference)
    assert np.isclose(found.gap.value, 0.8)
    assert np.isclose(found.gain.value, 0.4)
    assert np.isclose(found.share.value, 0.5)
    assert 0.3 < found.share.low < 0.5 < found.share.high < 0.7


def test_harm_is_negative_and_nothing_is_zero():
    base, reference = np.tile([0.0, 1.0], 30), np.ones(60)
    assert recovered(base, base, reference).share.value == 0
    assert recovered(base, np.zeros(60), reference).share.value == -1


def test_a_gap_that_may_be_nothing_has_no_share():
    scores = np.random.default_rng(0).integers(0, 2, (3, 40))
    found = recovered(*scores)
    assert found.gap.low <= 0
    assert np.isnan(found.share.value)
    assert found.share.n == 40


def test_scores_have_to_be_numbers():
    with pytest.raises(ValueError, match="not finite"):
        recovered(np.array([np.nan]), np.array([1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="no items"):
        recovered(*np.empty((3, 0)))
