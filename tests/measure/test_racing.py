import numpy as np
import pytest

from mechanism.measure.racing import Race, inclusion

ITEMS, CANDIDATES, TOP = 600, 60, 3


class Arena:
    """Candidates with known values, and what was asked of them."""

    def __init__(self, seed: int = 0, noise: float = 0.3):
        rng = np.random.default_rng(seed)
        mean = rng.gamma(0.5, 1.0, CANDIDATES)
        # Shared hardness of items, and a control that knows most of each value.
        self.control = mean[:, None] * rng.gamma(2.0, 0.5, (1, ITEMS)) * rng.gamma(4.0, 0.25, (CANDIDATES, ITEMS))
        self.values = self.control * rng.gamma(noise**-2, noise**2, self.control.shape)
        self.cost = np.ones_like(self.values)
        self.asked, self.passes = np.zeros(self.values.shape, int), 0
        self.places = (rng.permutation(ITEMS) + 0.5) / ITEMS

    def evaluate(self, candidates, items):
        np.add.at(self.asked, (candidates, items), 1)
        self.passes += len(set(items.tolist()))
        return self.values[candidates, items]

    def race(self, **own):
        """With everything, unless something else is handed over."""
        given = {"control": self.control, "cost": self.cost, "places": self.places, **own}
        settings = {name: given.pop(name) for name in ("budget", "confidence", "top") if name in given}
        evaluate = given.pop("evaluate", self.evaluate)
        return Race(settings.pop("top", TOP), **settings)(evaluate, **given)

    @property
    def best(self):
        return set(np.argsort(-self.values.mean(1))[:TOP])


@pytest.mark.parametrize("seed", range(6))
def test_it_finds_the_top_for_less_and_is_never_surely_wrong(seed):
    arena = Arena(seed)
    found = arena.race(budget=0.1)
    assert len(set(found.top) & arena.best) >= TOP - (1 if found.undecided else 0)
    status = found.table["status"].values
    assert set(np.flatnonzero(status == "in")) <= arena.best
    assert not set(np.flatnonzero(status == "out")) & arena.best
    assert found.spent <= 0.1
    assert found.spent == pytest.approx(arena.asked.sum() / arena.asked.size)
    assert (arena.asked.sum(1) == found.table["items"]).all()
    assert arena.asked.max() == 1


def test_the_control_makes_it_cheaper():
    """With a control that says nothing, as much is left open for several times the cost."""
    arenas = [Arena(seed, noise=0.2) for seed in range(4)]
    with_it = [arena.race(budget=0.05).undecided for arena in arenas]
    blind = [arena.race(budget=0.05, control=np.ones_like(arena.control)).undecided for arena in arenas]
    assert sum(with_it) < 0.5 * sum(blind)


def test_intervals_hold():
    """As approximate ones from few items do: all 60 of nearly every race, one in a thousand of them may fail."""
    covered = []
    for seed in range(20):
        arena = Arena(seed)
        table, mean = arena.race(budget=0.1).table, arena.values.mean(1)
        inside = (table["low"] <= mean + 1e-12) & (mean - 1e-12 <= table["high"])
        covered.append(inside[np.isfinite(table["high"])].to_numpy())
    assert np.mean([own.all() for own in covered]) >= 0.9
    assert np.concatenate(covered).mean() >= 0.998


def test_estimates_are_centred_on_the_truth():
    """Over random places the estimates of a candidate average to its mean: the odd sampling is weighted out again."""
    arena, rng = Arena(1, noise=0.5), np.random.default_rng(0)
    found = []
    for _ in range(300):
        arena.asked[:] = 0
        table = arena.race(budget=0.012, places=rng.random(ITEMS)).table
        assert table["items"].max() < ITEMS / 4
        found.append(table["estimate"] / arena.values.mean(1))
    error = np.std(found, axis=0) / np.sqrt(300)
    assert np.abs(np.mean(found, axis=0) - 1).max() < 0.05 + 4 * error.max()
    assert np.abs(np.mean(found) - 1) < 0.02


def test_inclusion_is_in_proportion_to_size_and_sums_to_the_count():
    size = np.array([8.0, 4, 2, 1, 1, 0])
    for count in range(1, 6):
        chance = inclusion(size, count)
        assert chance.sum() == pytest.approx(count)
        assert chance.max() <= 1
        free = (chance < 1) & (size > 0)
        assert np.ptp((chance / np.where(size > 0, size, 1))[free]) == pytest.approx(0) if free.any() else True
    assert inclusion(size, 3)[0] == 1


def test_with_everything_looked_at_it_is_exact():
    arena = Arena(3, noise=2.0)
    found = arena.race(budget=1.0, confidence=0.999999)
    assert set(found.top) == arena.best
    exact = found.table["items"] == ITEMS
    assert exact.sum() >= TOP
    np.testing.assert_allclose(found.table["estimate"][exact], arena.values.mean(1)[exact])
    assert (found.table["low"] == found.table["high"])[exact].all()
    assert found.undecided == 0


def test_what_costs_nothing_is_zero_and_never_asked():
    arena = Arena()
    arena.cost[5] = 0
    arena.cost[7, : ITEMS // 2] = 0
    found = arena.race(budget=0.5)
    row = found.table.iloc[5]
    assert (row["estimate"], row["low"], row["high"], row["status"]) == (0, 0, 0, "out")
    assert arena.asked[5].sum() == arena.asked[7, : ITEMS // 2].sum() == 0


def test_equals_stay_undecided_and_it_says_so():
    noise = np.random.default_rng(0).gamma(4, 0.25, (10, ITEMS))
    found = Arena().race(
        top=2, budget=0.3, evaluate=lambda c, i: noise[c, i], control=np.ones_like(noise), cost=np.ones_like(noise)
    )
    assert found.undecided >= 4
    assert len(found.top) == 2


def test_overhead_and_the_control_are_paid():
    plain, arena = Arena().race(budget=0.03, confidence=0.999999), Arena()
    each = arena.cost.sum()
    dear = arena.race(budget=0.03, confidence=0.999999, overhead=np.full(ITEMS, 0.5), paid=0.01 * each)
    assert TOP * 6 < arena.asked.sum() < plain.table["items"].sum()
    assert dear.spent <= 0.03
    assert dear.spent == pytest.approx((arena.asked.sum() + 0.01 * each + 0.5 * arena.passes) / (each + 0.5 * ITEMS))


def test_bad_input():
    arena = Arena()
    with pytest.raises(ValueError, match="is no search"):
        arena.race(top=CANDIDATES)
    arena.values[:, :] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        arena.race()
