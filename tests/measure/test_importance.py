import numpy as np
import pytest

from mechanism.measure.importance import activation_frequency, frequency_difference, slot_sums


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
