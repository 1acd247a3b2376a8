from itertools import pairwise

import numpy as np
import pytest

from mechanism.measure.racing import Race

ITEMS, CANDIDATES, TOP = 600, 60, 3


class Arena:
    """Candidates with known values, and what was asked of them."""

    def __init__(self, seed: int = 0, noise: float = 0.3):
        rng = np.random.default_rng(seed)
        mean = rng.gamma(0.5, 1.0, CANDIDATES)
        # Shared hardness of items, and a control that knows most of each value.
        self.control = mean[:, None] * rng.gamma(2.0, 0.5, (1, ITEMS)) * rng.gamma(4.0, 0.25, (CANDIDATES, ITEMS))
        self.values = self.control * (1 + noise * rng.normal(size=self.control.shape))
        self.cost = np.ones_like(self.values)
        self.asked = np.zeros(self.values.shape, int)

    def evaluate(self, candidates, items):
        self.asked[np.ix_(candidates, items)] += 1
        return self.values[np.ix_(candidates, items)]

    def rounds(self, first: int = 30):
        edges = [0, *(min(ITEMS, first * 2**i) for i in range(6))]
        return [np.arange(a, b) for a, b in pairwise(edges) if b > a]

    @property
    def best(self):
        return set(np.argsort(-self.values.mean(1))[:TOP])


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_the_top_for_less_and_is_never_surely_wrong(seed):
    arena = Arena(seed)
    found = Race(TOP, budget=0.3)(arena.evaluate, arena.control, arena.cost, arena.rounds())
    assert len(set(found.top) & arena.best) >= TOP - (1 if found.undecided else 0)
    status = found.table["status"].values
    assert set(np.flatnonzero(status == "in")) <= arena.best
    assert not set(np.flatnonzero(status == "out")) & arena.best
    assert found.spent <= 0.3
    assert found.spent == pytest.approx(arena.asked.sum() / arena.asked.size)
    assert arena.asked.max() == 1


def test_intervals_hold():
    covered = []
    for seed in range(10):
        arena = Arena(seed)
        table = Race(TOP, budget=0.3)(arena.evaluate, arena.control, arena.cost, arena.rounds()).table
        mean, bounded = arena.values.mean(1), np.isfinite(table["low"].values)
        covered.append(((table["low"] <= mean + 1e-12) & (mean - 1e-12 <= table["high"]))[bounded].all())
    assert sum(covered) >= 9


def test_with_everything_looked_at_it_is_exact():
    arena = Arena(3, noise=2.0)
    found = Race(TOP, budget=1.0, confidence=0.999999)(arena.evaluate, arena.control, arena.cost, arena.rounds())
    assert set(found.top) == arena.best
    exact = found.table["items"] == ITEMS
    np.testing.assert_allclose(found.table["estimate"][exact], arena.values.mean(1)[exact])
    assert (found.table["low"] == found.table["high"])[exact].all()
    assert found.undecided == 0


def test_what_costs_nothing_is_zero_and_never_asked():
    arena = Arena()
    arena.cost[5] = 0
    arena.cost[7, : ITEMS // 2] = 0
    found = Race(TOP, budget=0.5)(lambda c, i: arena.evaluate(c, i) * (arena.cost[np.ix_(c, i)] > 0),
                                  arena.control * (arena.cost > 0), arena.cost, arena.rounds())  # fmt: skip
    row = found.table.iloc[5]
    assert (row["estimate"], row["low"], row["high"], row["status"]) == (0, 0, 0, "out")


def test_equals_stay_undecided_and_it_says_so():
    control = np.ones((10, ITEMS))
    noise = np.random.default_rng(0).normal(1, 0.5, control.shape)
    race = Race(2, budget=0.3)
    rounds = Arena().rounds()
    found = race(lambda c, i: noise[np.ix_(c, i)], control, np.ones_like(control), rounds)
    assert found.undecided >= 4
    assert len(found.top) == 2


def test_overhead_and_the_control_are_paid():
    arena = Arena()
    args = arena.evaluate, arena.control, arena.cost, arena.rounds()
    plain = Race(TOP, budget=0.2)(*args)
    dear = Race(TOP, budget=0.2)(*args, overhead=np.full(ITEMS, 100.0), paid=0.4 * arena.cost.sum())
    looked, each = dear.table["items"].sum(), arena.cost.sum()
    assert looked < plain.table["items"].sum()
    paid = looked + 0.4 * each + 100 * dear.table["items"].max()
    assert dear.spent <= 0.2
    assert dear.spent == pytest.approx(paid / (each + 100 * ITEMS))


def test_bad_input():
    arena = Arena()
    with pytest.raises(ValueError, match="is no search"):
        Race(CANDIDATES)(arena.evaluate, arena.control, arena.cost, arena.rounds())
    arena.values[0, 0] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        Race(TOP)(arena.evaluate, arena.control, arena.cost, arena.rounds())
