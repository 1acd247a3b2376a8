import numpy as np
import pytest

from mechanism.measure.position import PositionSlope, moments, relative_slopes
from mechanism.measure.seeds import over_seeds


def text(seed=0, documents=100, length=21, experts=12, early=(0, 1)):
    """Tokens at positions 0..1; the early experts are selected with a probability that falls from .6 to .2."""
    rng = np.random.default_rng(seed)
    position = np.tile(np.linspace(0, 1, length), documents)
    rate = np.full((len(position), experts), 0.4)
    rate[:, list(early)] = 0.6 - 0.4 * position[:, None]
    return position, rng.random(rate.shape) < rate, np.repeat(np.arange(documents), length)


def member(*experts, size=12):
    own = np.zeros(size, bool)
    own[list(experts)] = True
    return own


STRATA = np.zeros(12, int)
QUICK = PositionSlope(n_boot=200, n_perm=300)


def judged(*experts, **planted):
    return over_seeds([QUICK([(moments(*text(**planted)), member(*experts))], STRATA)], alternative="less")


def test_planted_slope_is_found_beyond_that_of_matched_experts():
    parts = [(moments(*text()), member(0, 1))]
    own, matched = relative_slopes(parts, STRATA)
    assert own == pytest.approx(-1.0, abs=0.15)
    assert matched == pytest.approx(-0.8 / 4.8, abs=0.05), "two experts of twelve fall"
    found = judged(0, 1)
    assert found.estimate == pytest.approx(own - matched)
    assert found.low < found.estimate < found.high < 0
    assert found.estimate < found.null
    assert found.p < 0.05


def test_experts_without_slope_have_none():
    found = judged(7, 8, 9, early=())
    assert found.low < 0 < found.high
    assert found.p > 0.05


def test_a_slope_that_all_experts_have_is_nothing_of_the_set():
    found = judged(3, 8, early=range(12))
    assert found.low < 0 < found.high
    assert abs(found.estimate) < 0.1
    assert found.p > 0.05


def test_the_interval_resamples_experts_too():
    """Two experts with opposite slopes: documents alone would leave no doubt."""
    position, selected, document = text(documents=400)
    selected[:, 1] = selected[::-1, 0]
    found = over_seeds([QUICK([(moments(position, selected, document), member(0, 1))], STRATA)])
    assert found.low < -0.7 < 0.7 < found.high


def test_slopes_are_least_squares():
    position, selected, document = text(documents=5)
    own = moments(position, selected, document)
    slope, mean = own.slopes(np.ones(5))
    for expert in range(12):
        assert slope[expert] == pytest.approx(np.polyfit(position, selected[:, expert].astype(float), 1)[0])
    np.testing.assert_allclose(mean, selected.mean(0))
    times = np.array([2.0, 0, 1, 1, 1])
    again = np.repeat(np.arange(len(position)), times[document].astype(int))
    wanted = np.polyfit(position[again], selected[again, 3].astype(float), 1)[0]
    assert own.slopes(times)[0][3] == pytest.approx(wanted)


def test_kinds_of_token_explain_a_slope_away():
    rng = np.random.default_rng(0)
    position = np.tile(np.linspace(0, 1, 20), 200)
    kind = (rng.random(len(position)) < position).astype(int)
    selected = np.stack([kind == 0, kind == 1], 1)
    document = np.repeat(np.arange(200), 20)
    assert moments(position, selected, document).slopes(np.ones(200))[0][0] == pytest.approx(-1, abs=0.1)
    assert abs(moments(position, selected, document, kind).slopes(np.ones(200))[0][0]) < 1e-9


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: moments(np.zeros(0), np.zeros((0, 2)), np.zeros(0, int)), "no tokens"),
        (lambda: moments(np.ones(4), np.ones((4, 2)), np.zeros(4, int)).slopes(np.ones(1)), "one position"),
        (lambda: QUICK([(moments(text()[0], text()[1] & False, text()[2]), member(0))], STRATA), "no token selects"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(ValueError, match=said):
        call()
