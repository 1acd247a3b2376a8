from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanism.measure.consistency import Consistency, jaccard, selected


def obvious(index, pairs):
    sets = [{e for e in row if e >= 0} for row in index.tolist()]
    return np.mean([len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs])


@given(st.integers(0, 1000))
def test_equals_sets_and_stays_in_bounds(seed):
    rng = np.random.default_rng(seed)
    index = rng.permuted(np.tile(np.arange(6), (9, 1)), axis=1)[:, :3]
    index[3, 2] = -1
    chosen = selected(index, 6)
    every, adjacent = Consistency()(chosen), Consistency("adjacent")(chosen)
    assert np.isclose(every, obvious(index, combinations(range(9), 2)))
    assert np.isclose(adjacent, obvious(index, [(i, i + 1) for i in range(8)]))
    assert 0 <= every <= 1
    assert np.isclose(every, Consistency()(chosen[:, rng.permutation(6)]))
    assert np.isclose(every, Consistency()(chosen[rng.permutation(9)]))


def test_extremes():
    same = selected(np.tile([0, 1], (5, 1)), 4)
    assert Consistency()(same) == 1
    assert (jaccard(same, same) == 1).all()
    assert (jaccard(same, selected(np.tile([2, 3], (5, 1)), 4)) == 0).all()


def test_the_language_that_uses_few_experts_is_consistent(planted):
    found = {}
    for code, index in planted.index.items():
        chosen = selected(index.transpose(0, 2, 1, 3), 12)
        found[code] = Consistency()(chosen).mean(0)
    assert (found["stranger"] > found["en"]).all()
    assert np.allclose(found["sister"][2:4], found["en"][2:4], atol=0.02)
    assert (found["sister"][[0, 1, 4, 5]] > found["en"][[0, 1, 4, 5]]).all()


def test_a_sequence_agrees_with_itself_more_than_with_others(planted):
    chosen = selected(planted.index["en"][:, :, 2], 12)
    within = Consistency()(chosen).mean()
    between = jaccard(chosen[:-1], chosen[1:]).mean()
    assert within > between + 0.05


def test_no_pairs_and_no_experts_are_errors():
    with pytest.raises(ValueError, match="two tokens"):
        Consistency()(selected(np.array([[0]]), 2))
    with pytest.raises(ValueError, match="without experts"):
        Consistency()(selected(np.array([[0], [-1]]), 2))
    with pytest.raises(ValueError, match="must lie"):
        selected(np.array([[2]]), 2)
