import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mechanism.measure.paired import PairedDifference, SeedMean


def test_seed_mean_is_scipys_interval():
    values = np.array([0.3, -0.1, 0.4, 0.2])
    found = SeedMean(0.9)(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert found[:4] == pytest.approx((values.mean(), low, high, 4))


def test_seed_mean_is_above_zero_as_scipy_says():
    values = np.array([0.3, -0.1, 0.4, 0.2])
    assert SeedMean().above(values) == pytest.approx(stats.ttest_1samp(values, 0, alternative="greater").pvalue)
    assert SeedMean().above(-values) == pytest.approx(stats.ttest_1samp(values, 0, alternative="less").pvalue)
    assert SeedMean().above(values, (np.linspace(-5, 5, 99), 99)) > 0.3, "documents add to the variance"
    assert [SeedMean().above(np.full(3, one)) for one in (0.0, 1.0)] == [1, 0]


def test_without_variation_of_documents_only_seeds_count():
    per_seed, tokens = np.array([0.01, 0.03, 0.02]), np.array([10.0, 30.0, 5.0, 20.0])
    found = PairedDifference()(per_seed[:, None] * tokens, tokens)
    assert found[:4] == pytest.approx(SeedMean()(per_seed)[:4])


def test_without_variation_of_seeds_only_documents_count():
    differences, tokens = np.array([1.0, 3.0, 2.0, 5.0, 4.0]), np.full(5, 10.0)
    found = PairedDifference()(np.tile(differences, (3, 1)), tokens)
    low, high = stats.ttest_1samp(differences / 10, 0).confidence_interval(0.95)
    assert found[:4] == pytest.approx((0.3, low, high, 3))


@given(st.floats(-2, 2), st.integers(0, 99))
def test_a_constant_per_token_shifts_the_interval(shift, seed):
    rng = np.random.default_rng(seed)
    tokens, differences = rng.integers(5, 50, 6).astype(float), rng.normal(size=(3, 6))
    base, moved = PairedDifference()(differences, tokens), PairedDifference()(differences + shift * tokens, tokens)
    assert moved[:3] == pytest.approx(np.array(base[:3]) + shift, abs=1e-9)


def test_three_seeds_cover_the_truth_where_a_bootstrap_over_them_would_not():
    rng, tokens, truth, hits = np.random.default_rng(0), np.full(40, 100.0), 0.05, 0
    for _ in range(400):
        noise = rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.1, (1, 40)) + rng.normal(0, 0.05, (3, 40))
        found = PairedDifference()((truth + noise) * tokens, tokens)
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 400 <= 1


@pytest.mark.parametrize(
    ("differences", "tokens", "message"),
    [
        (np.zeros((1, 4)), np.ones(4), "1 seeds and 4 documents"),
        (np.zeros((3, 1)), np.ones(1), "3 seeds and 1 documents"),
        (np.zeros((3, 2)), np.array([1.0, 0.0]), "no tokens"),
        (np.full((3, 2), np.nan), np.ones(2), "not finite"),
    ],
)
def test_what_gives_no_interval_is_refused(differences, tokens, message):
    with pytest.raises(ValueError, match=message):
        PairedDifference()(differences, tokens)


def test_one_seed_gives_no_interval():
    with pytest.raises(ValueError, match="1 seeds give no interval"):
        SeedMean()(np.array([0.5]))


def test_units_beneath_the_seeds_widen_the_interval():
    values, rng = np.array([0.3, -0.1, 0.4, 0.2]), np.random.default_rng(0)
    alone, never = SeedMean()(values), SeedMean()(values, (np.full(200, values.mean()), 20))
    assert never[:4] == pytest.approx(alone[:4]), "units that do not vary add nothing"
    wide = SeedMean()(values, (values.mean() + rng.normal(0, 0.5, 200), 20))
    assert wide.high - wide.low > 1.2 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="1 units beneath"):
        SeedMean()(values, (np.zeros(200), 1))
