import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score

from mechanism.measure.documents import Documents, Domains
from mechanism.measure.specialisation import (
    activation_entropy,
    activation_rate,
    activation_share,
    certainty,
    cwas,
    information,
    lift,
    mutual_information,
)


def documents(seed: int) -> Documents:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 9, 8)
    selections = rng.integers(0, tokens[:, None, None] + 1, (8, 2, 3))
    selections[:, 0, 0] = 0
    return Documents(np.array(list("aabbcccc")), tokens, selections)


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_bounds_and_equivariance(seed):
    given, order = documents(seed), np.array([2, 0, 1])
    domains = Domains(given)
    swapped = Domains(Documents(given.domain, given.tokens, given.selections[..., order]))
    for metric, top in (
        (activation_rate, 1),
        (cwas, 1),
        (lift, 3),
        (information, np.log(2)),
    ):
        found = metric(domains)
        known = found[~np.isnan(found)]
        assert known.min() >= 0
        assert known.max() <= top + 1e-9
        assert np.allclose(metric(swapped), found[:, order], equal_nan=True)
    assert np.nanmax(activation_entropy(domains)) <= np.log(3) + 1e-9
    assert (cwas(domains) <= activation_rate(domains)).all()


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_equals_scipy_and_sklearn(seed):
    given = documents(seed)
    domains = Domains(given)
    rate = np.stack(
        [given.selections[given.codes == d].sum(0) / given.tokens[given.codes == d].sum() for d in range(3)], -1
    )
    assert np.allclose(activation_rate(domains), rate)
    used = rate.sum(-1) > 0
    assert np.allclose(activation_entropy(domains)[used], scipy_entropy(rate[used], axis=-1))
    total = np.array([given.tokens[given.codes == d].sum() for d in range(3)])
    equal = total.prod()  # as many tokens of each domain, at its rate
    table = np.stack([rate[1, 1] * equal, (1 - rate[1, 1]) * equal], 1).round().astype(np.int64)
    expected = mutual_info_score(None, None, contingency=table)
    assert np.isclose(mutual_information(domains)[1, 1], expected)
    assert np.allclose(information(domains).sum(-1), mutual_information(domains))


def test_one_domain_only_is_certain_and_all_alike_is_not():
    given = Documents(np.array(["a", "b"]), np.array([10, 20]), np.array([[[5, 2]], [[0, 4]]]))
    domains = Domains(given)
    assert np.allclose(activation_share(domains), [[[1.0, 0.0], [0.5, 0.5]]])
    assert np.allclose(certainty(domains), [[1, 0]])
    assert np.allclose(cwas(domains), [[[0.5, 0.0], [0.0, 0.0]]])
    assert np.allclose(lift(domains), [[[2, 0], [1, 1]]])


def test_an_unused_expert_has_no_share_and_no_weight():
    domains = Domains(documents(0))
    assert np.isnan(activation_share(domains)[0, 0]).all()
    assert np.isnan(certainty(domains)[0, 0])
    assert np.isnan(lift(domains)[0, 0]).all()
    assert (cwas(domains)[0, 0] == 0).all()
    assert (information(domains)[0, 0] == 0).all()


def test_impossible_documents_are_errors():
    tokens, selections = np.array([2, 2]), np.ones((2, 1, 1))
    with pytest.raises(ValueError, match="at least two"):
        Documents(np.array(["a", "a"]), tokens, selections)
    with pytest.raises(ValueError, match="more tokens than there are"):
        Documents(np.array(["a", "b"]), tokens, 3 * selections)
    with pytest.raises(ValueError, match="weight: a value is not finite"):
        Documents(np.array(["a", "b"]), tokens, selections, np.nan * selections)
    with pytest.raises(ValueError, match="layer indices"):
        Documents(np.array(["a", "b"]), tokens, selections, layers=(1, 2))
    with pytest.raises(ValueError, match="recorded without 'weight'"):
        Domains(Documents(np.array(["a", "b"]), tokens, selections)).mean("weight")
