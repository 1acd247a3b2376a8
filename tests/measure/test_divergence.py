import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy

from mechanism.measure.divergence import (
    divergence_matrix,
    entropy,
    js_divergence,
    normalised_js,
    routing_divergence,
)

weights = st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5)


def normalise(values):
    return np.array(values) / np.sum(values)


@given(weights, weights)
def test_equals_scipy(a, b):
    p, q = normalise(a), normalise(b)
    assert np.isclose(entropy(p), scipy_entropy(p))
    assert np.isclose(js_divergence(p, q), jensenshannon(p, q) ** 2, atol=1e-12)


@given(weights, weights)
def test_bounds_symmetry_and_permutation(a, b):
    p, q = normalise(a), normalise(b)
    value = normalised_js(p, q)
    assert 0 <= value <= 1 + 1e-9
    assert np.isclose(value, normalised_js(q, p))
    order = np.random.default_rng(0).permutation(len(p))
    assert np.isclose(value, normalised_js(p[order], q[order]))
    assert normalised_js(p, p) < 1e-9


def test_disjoint_point_masses_are_furthest_apart():
    p, q = np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0])
    assert np.isclose(js_divergence(p, q), np.log(2))
    assert np.isclose(normalised_js(p, q), np.log(2) / np.log(4))


def test_broadcasts_over_leading_axes():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(6), size=(3, 4))
    q = rng.dirichlet(np.ones(6), size=(3, 4))
    found = normalised_js(p, q)
    assert found.shape == (3, 4)
    assert np.isclose(found[1, 2], normalised_js(p[1, 2], q[1, 2]))


def test_routing_divergence_averages_pairs_that_both_exist():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), size=(2, 5, 3))
    q[1] = np.nan
    kept = [0, 2, 3, 4]
    assert np.allclose(routing_divergence(p, q), normalised_js(p[kept], q[kept]).mean(0))
    with pytest.raises(ValueError, match="no segment"):
        routing_divergence(p, np.full_like(p, np.nan))


def test_matrix_is_symmetric_and_counts_common_segments():
    q = np.random.default_rng(0).dirichlet(np.ones(4), size=(3, 6, 2))
    q[0, 3:] = np.nan
    q[1, :3] = np.nan
    found, counts = divergence_matrix(q)
    assert counts.tolist() == [[3, 0, 3], [0, 3, 3], [3, 3, 6]]
    assert np.isnan(found[:, 0, 1]).all()
    assert np.allclose(found, found.swapaxes(1, 2), equal_nan=True)
    assert np.allclose(found[:, 0, 2], routing_divergence(q[2], q[0]))


def test_planted_languages_are_told_apart(planted):
    q = np.stack([probs.swapaxes(1, 2).mean(-2) for probs in planted.probs.values()])
    found, _ = divergence_matrix(q)
    to_sister, to_stranger = found[:, 0, 1], found[:, 0, 2]
    assert to_sister[2:4].max() < to_sister[[0, 1, 4, 5]].min() / 3
    assert to_stranger.min() > 3 * to_sister[2:4].max()
    entropies = {code: entropy(row).mean(0) for code, row in zip(planted.probs, q, strict=True)}
    assert (entropies["stranger"] < entropies["en"]).all()
    assert np.allclose(entropies["sister"][2:4], entropies["en"][2:4], atol=0.05)
