import numpy as np
import pytest

from mechanism.measure.matching import MatchedExperts


def test_sets_match_in_layer_number_and_frequency():
    rng = np.random.default_rng(0)
    base = rng.random((4, 16))
    chosen = np.zeros((4, 16), dtype=bool)
    ranked = base.argsort(1)
    chosen[1, ranked[1, [6, 10]]] = chosen[3, ranked[3, 2]] = True
    drawn = MatchedExperts(draws=60, neighbours=3)(chosen, base)
    assert drawn.shape == (60, 4, 16)
    assert (drawn.sum(2) == chosen.sum(1)).all()
    assert not (drawn & chosen).any()
    near = ranked[3, [0, 1, 3, 4]]
    assert set(np.flatnonzero(drawn[:, 3].any(0))) <= set(near), "the nearest three"
    assert drawn[:, 3].any(0).sum() == 3, "each of them at some time"
    apart = [abs(base[one].mean() - base[chosen].mean()) for one in drawn]
    blind = [abs(rng.choice(base[1], 2).sum() / 3 + rng.choice(base[3]) / 3 - base[chosen].mean()) for _ in range(500)]
    assert np.mean(apart) < 0.5 * np.mean(blind)


def test_draws_follow_the_seed():
    base, chosen = np.random.default_rng(0).random((2, 8)), np.eye(8, dtype=bool)[[1, 4]]
    one, two, other = (MatchedExperts(5, seed=seed)(chosen, base) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, two)
    assert (other != one).any()


def test_too_many_to_match():
    with pytest.raises(ValueError, match="row 0 are chosen"):
        MatchedExperts()(np.ones((1, 4), dtype=bool), np.ones((1, 4)))
