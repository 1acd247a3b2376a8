import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from mechanism.measure.nulls import false_discovery, permutation_p, shuffles


def test_shuffles_keep_strata_and_repeat():
    strata = np.array(list("aabbb"))
    drawn = list(shuffles(5, 20, 1, strata))
    assert all((strata[order] == strata).all() for order in drawn)
    assert len({tuple(order) for order in drawn}) > 3
    assert all(np.array_equal(a, b) for a, b in zip(drawn, shuffles(5, 20, 1, strata), strict=True))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_false_discovery_equals_scipy(p):
    p = np.array(p)
    assert np.allclose(false_discovery(p), false_discovery_control(p))


def test_unknown_cells_take_no_part():
    p = np.array([[0.01, np.nan], [0.04, 0.5]])
    found = false_discovery(p)
    assert np.isnan(found[0, 1])
    assert np.allclose(found[~np.isnan(p)], false_discovery_control(p[~np.isnan(p)]))
    assert np.isnan(false_discovery(np.array([np.nan]))).all()


def test_permutation_p_counts_the_observed_and_ties():
    draws = np.array([[0.0], [1.0], [1.0], [2.0]])
    assert permutation_p(np.array([1.0]), draws)[0] == 4 / 5
    assert permutation_p(np.array([1.0]), draws, "less")[0] == 4 / 5
    assert permutation_p(np.array([1.0]), draws, "two-sided")[0] == 1
    assert permutation_p(np.array([9.0]), draws)[0] == 1 / 5
    assert np.isnan(permutation_p(np.array([np.nan]), draws)[0])
    with pytest.raises(ValueError, match="at least one draw"):
        permutation_p(np.array([1.0]), draws[:0])
