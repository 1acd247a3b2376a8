import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from mechanism.measure.correlation import Correlation
from mechanism.measure.regression import NestedRegression

pearson = Correlation(n_boot=60, n_perm=60)
spearman = Correlation("spearman", n_boot=60, n_perm=60)


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_equals_scipy_and_is_symmetric_and_bounded(seed):
    x, y = np.random.default_rng(seed).normal(size=(2, 9)).round(1)
    for correlation, oracle in ((pearson, pearsonr), (spearman, spearmanr)):
        found = correlation(x, y)
        assert np.isclose(found.estimate, oracle(x, y).statistic)
        assert np.isclose(found.estimate, correlation(y, x).estimate)
        assert np.isclose(found.estimate, -correlation(-x, y).estimate)
        assert -1 <= found.low <= found.high <= 1
        assert 0 < found.p <= 1


def test_partial_correlation_equals_the_inverse_of_the_correlation_matrix():
    data = np.random.default_rng(0).normal(size=(30, 4)) @ np.random.default_rng(1).normal(size=(4, 4))
    for correlation, matrix in ((pearson, np.corrcoef(data.T)), (spearman, spearmanr(data).statistic)):
        inverse = np.linalg.inv(matrix)
        expected = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
        found = correlation(data[:, 0], data[:, 1], data[:, 2:])
        assert np.isclose(found.estimate, expected)


def test_p_value_is_that_of_normal_theory():
    x, noise = np.random.default_rng(2).normal(size=(2, 20))
    y = x + 2 * noise
    found = Correlation(n_boot=60, n_perm=2000)(x, y)
    assert abs(found.p - pearsonr(x, y).pvalue) < 0.02


def test_a_common_cause_explains_its_correlation_away():
    rng = np.random.default_rng(0)
    cause = rng.normal(size=60)
    x, y = cause + 0.4 * rng.normal(size=(2, 60))
    plain, partial = (
        Correlation(n_boot=300, n_perm=300)(x, y),
        Correlation(n_boot=300, n_perm=300)(x, y, cause[:, None]),
    )
    assert plain.low > 0.5
    assert plain.p < 0.01
    assert partial.low < 0 < partial.high
    assert partial.p > 0.05


def test_strata_leave_what_groups_explain_to_the_null():
    rng = np.random.default_rng(1)
    family = np.repeat([0, 1, 2], 6)
    x, y = 5 * family + rng.normal(size=(2, 18))
    assert Correlation(n_boot=60, n_perm=300)(x, y).p < 0.02
    assert Correlation(n_boot=60, n_perm=300)(x, y, strata=family).p > 0.05


@pytest.mark.parametrize(
    ("x", "y", "covariates", "message"),
    [
        ([1, 2, 3], [1, 2, 4], None, "too few"),
        ([1, 2, 3, 4], [2, 2, 2, 2], None, "constant"),
        ([1, 2, 3, np.nan], [1, 2, 3, 5], None, "finite"),
        ([1, 2, 3, 4, 5, 7], [1, 2, 3, 5, 1, 0], [2, 4, 6, 8, 10, 14], "determined"),
    ],
)
def test_undefined_correlations_are_errors(x, y, covariates, message):
    columns = None if covariates is None else np.array(covariates, dtype=float)[:, None]
    with pytest.raises(ValueError, match=message):
        pearson(np.array(x, dtype=float), np.array(y, dtype=float), columns)


def test_nested_regression_equals_statsmodels():
    rng = np.random.default_rng(0)
    data = pd.DataFrame(rng.normal(size=(25, 4)), columns=list("abcy"))
    data["y"] += 0.5 * data["c"] + data["a"]
    found = NestedRegression(n_perm=500)(data["y"].to_numpy(), data[["a"]].to_numpy(), data[["b", "c"]].to_numpy())
    small, large = (sm.OLS(data["y"], sm.add_constant(data[list(c)])).fit() for c in ("a", "abc"))
    f, p, _ = large.compare_f_test(small)
    assert np.allclose([found.base, found.full, found.f, found.p_f], [small.rsquared, large.rsquared, f, p])
    assert np.isclose(found.value, large.rsquared - small.rsquared)
    assert abs(found.p - found.p_f) < 0.04


def test_nested_regression_refuses_what_it_cannot_tell_apart():
    x = np.arange(6.0)[:, None]
    with pytest.raises(ValueError, match="independent predictors"):
        NestedRegression()(x[:, 0] ** 2, x, 2 * x)
    with pytest.raises(ValueError, match="constant"):
        NestedRegression()(np.ones(6), x, x**2)
    with pytest.raises(ValueError, match="finite"):
        NestedRegression()(np.full(6, np.nan), x, x**2)
