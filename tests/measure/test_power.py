import numpy as np
import pytest

from mechanism.measure.power import Detectable


def test_published_sizes():
    """Cohen 1988, table 3.4: r = .30 needs 85 units; G*Power: f2 = .15, one of three predictors tested, needs 55."""
    assert Detectable().correlation(85) == pytest.approx(0.30, abs=0.005)
    assert Detectable().explained(55, base=2) == pytest.approx(0.15 / 1.15, abs=0.002)


def test_a_drawn_correlation_is_found_as_often_as_stated():
    rng, n = np.random.default_rng(0), 20
    r = Detectable().correlation(n)
    x = rng.normal(size=(4000, n))
    y = r * x + np.sqrt(1 - r**2) * rng.normal(size=(4000, n))
    x, y = (v - v.mean(1, keepdims=True) for v in (x, y))
    found = (x * y).sum(1) / np.sqrt((x**2).sum(1) * (y**2).sum(1))
    assert (np.abs(found) > 0.4438).mean() == pytest.approx(0.8, abs=0.03)  # critical value for 18 degrees of freedom


def test_an_interval_gives_a_multiple_of_its_standard_error():
    assert Detectable().difference(-1.96, 1.96) == pytest.approx(2.80, abs=0.005)
    assert Detectable().difference(0.2, 0.2) == 0


def test_students_interval_of_few_units_finds_what_is_stated():
    rng = np.random.default_rng(0)
    effect = Detectable().difference(-4.303, 4.303, freedom=2.0)
    errors = np.sqrt(rng.chisquare(2, 20000) / 2)
    assert (np.abs(rng.normal(effect, 1, 20000) / errors) > 4.303).mean() == pytest.approx(0.8, abs=0.01)
    assert Detectable().difference(-1.0, 1.0, freedom=1e6) == pytest.approx(
        Detectable().difference(-1.0, 1.0), rel=1e-4
    )


def test_covariates_cost_units():
    assert Detectable().correlation(24, covariates=4) == Detectable().correlation(20)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda d: d.correlation(6, covariates=3), "6 units are too few for a correlation given 3"),
        (lambda d: d.explained(5, base=3), "5 units are too few for 3 . 1 predictors"),
        (lambda d: d.difference(1.0, 0.0), "upside down"),
    ],
)
def test_too_few_units(call, match):
    with pytest.raises(ValueError, match=match):
        call(Detectable())
