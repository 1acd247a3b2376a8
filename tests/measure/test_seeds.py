import numpy as np
import pytest
from scipy.stats import t as student

from mechanism.measure.seeds import Sampled, over_seeds

RNG = np.random.default_rng(0)


def model(centre: float, spread: float = 1.0, chance: float | None = None, units: int = 50) -> Sampled:
    null = np.zeros(0) if chance is None else RNG.normal(chance, 1, 999)
    return Sampled(centre, RNG.normal(centre, spread, 2000), units, null)


def test_one_model_has_the_interval_of_its_own_draws():
    own = model(3.0)
    found = over_seeds([own])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(own.draws, [0.025, 0.975])))
    assert found.n == 1


def test_models_that_differ_widen_the_interval_and_are_drawn_as_wholes():
    alike, apart = ([model(c, 0.1) for c in own] for own in ((1.0, 1.0, 1.0), (0.0, 1.0, 2.0)))
    same, differ = over_seeds(alike), over_seeds(apart)
    assert same.estimate == differ.estimate == 1.0
    assert (same.n, differ.n) == (3, 3)
    assert same.high - same.low < 0.4 < 1.5 < differ.high - differ.low


def test_the_null_is_of_the_mean_over_models():
    found = over_seeds([model(4.0, chance=0.0)] * 3 + [model(4.0, chance=0.0)])
    assert found.null < 1.7
    assert found.p == pytest.approx(1 / 1000)
    assert over_seeds([model(0.0, chance=0.0)]).p > 0.05
    assert over_seeds([model(-4.0, chance=0.0)], alternative="less").p == pytest.approx(1 / 1000)
    assert np.isnan(over_seeds([model(0.0)]).null)


@pytest.mark.parametrize("models", [[], [Sampled(1.0, np.zeros(0), 50)]])
def test_nothing_to_resample_is_refused(models):
    with pytest.raises(ValueError, match="needs models, each with draws"):
        over_seeds(models)


def test_units_beneath_the_seeds_are_counted_as_such_and_not_as_their_resamples():
    own = model(1.0, 1.0)
    wide, narrow = (over_seeds([own._replace(units=units)] * 3) for units in (5, 5000))
    variance = own.draws.var(ddof=1)
    assert wide.high - 1 == pytest.approx(student.ppf(0.975, 4) * variance**0.5), "of models alike: that of five units"
    assert narrow.high - 1 == pytest.approx(1.96 * variance**0.5, rel=1e-3)
