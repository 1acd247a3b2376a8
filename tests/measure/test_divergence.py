import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy

from mechanism.measure.divergence import entropy, js_divergence, normalised_js

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
