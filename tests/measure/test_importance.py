import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanism.measure.importance import activation_frequency, frequency_difference, importance, slot_sums


@given(st.integers(0, 1000))
def test_importance_is_the_mean_over_counted_tokens(seed):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(5), size=(3, 7))
    mask = rng.random((3, 7)) < 0.7
    mask[:, 0] = True
    found = importance(probs, mask)
    assert np.allclose(found.sum(-1), 1)
    assert np.allclose(found[1], probs[1][mask[1]].mean(0))
    order = rng.permutation(5)
    assert np.allclose(importance(probs[..., order], mask), found[..., order])


def test_importance_ignores_what_padding_holds_and_refuses_logits():
    probs = np.array([[0.5, 0.5], [np.nan, np.nan]])
    assert np.allclose(importance(probs, np.array([True, False])), 0.5)
    with pytest.raises(ValueError, match="softmax"):
        importance(np.array([[2.0, -1.0]]))
    with pytest.raises(ValueError, match="without tokens"):
        importance(np.array([[0.5, 0.5]]), np.array([False]))


def test_slot_sums_equal_the_obvious_loop():
    rng = np.random.default_rng(0)
    index, document = rng.integers(-1, 4, (20, 2)), rng.integers(0, 3, 20)
    values = np.where(index >= 0, rng.random((20, 2)), np.nan)
    counts, sums = np.zeros((3, 4)), np.zeros((3, 4))
    for token in range(20):
        for expert, value in zip(index[token], values[token], strict=True):
            if expert >= 0:
                counts[document[token], expert] += 1
                sums[document[token], expert] += value
    assert np.array_equal(slot_sums(index, document, 3, 4), counts)
    assert np.allclose(slot_sums(index, document, 3, 4, values), sums)


def test_slot_sums_refuse_what_is_out_of_range_or_not_finite():
    one = np.array([[4]]), np.array([0])
    with pytest.raises(ValueError, match="experts must lie"):
        slot_sums(*one, 1, 4)
    with pytest.raises(ValueError, match="not finite"):
        slot_sums(*one, 1, 5, np.array([[np.inf]]))


def test_frequency_difference_weighs_segments_alike_and_is_antisymmetric():
    long = activation_frequency(np.array([[100, 0], [0, 1]]), np.array([100, 1]))
    base = activation_frequency(np.array([[0, 5]]), np.array([5]))
    assert np.allclose(frequency_difference(long, base), [0.5, -0.5])
    assert np.allclose(frequency_difference(base, long), [-0.5, 0.5])
    with pytest.raises(ValueError, match="at least one segment"):
        frequency_difference(long, base[:0])


def test_impossible_frequencies_are_errors():
    with pytest.raises(ValueError, match="without tokens"):
        activation_frequency(np.array([[1]]), np.array([0]))
    with pytest.raises(ValueError, match="more tokens"):
        activation_frequency(np.array([[2]]), np.array([1]))
