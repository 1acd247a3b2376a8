import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from mechanism.measure.importance import activation_frequency, frequency_difference
from mechanism.measure.overlap import (
    PermutedOverlap,
    experts_above,
    frequency_strata,
    hypergeometric_overlap,
    overlap_curve,
)


@given(st.integers(0, 1000))
def test_one_layer_is_the_hypergeometric_distribution(seed):
    first, second = np.random.default_rng(seed).random((2, 1, 12)) < 0.4
    found, law = hypergeometric_overlap(first, second), hypergeom(12, int(first.sum()), int(second.sum()))
    assert np.isclose(found.expected, law.mean())
    assert np.isclose(found.p_fewer, law.cdf(found.shared))
    assert np.isclose(found.p_more, law.sf(found.shared - 1))
    swapped = hypergeometric_overlap(second, first)
    assert np.allclose(found, swapped)


def test_permutation_within_layers_agrees_with_the_exact_null():
    first, second = np.random.default_rng(3).random((2, 3, 10)) < 0.4
    exact, drawn = hypergeometric_overlap(first, second), PermutedOverlap(n_perm=1000)(first, second)
    assert exact.shared == drawn.shared
    assert np.allclose(exact, drawn, atol=0.05)


def test_empty_sets_prove_nothing():
    none = np.zeros((2, 4), dtype=bool)
    found = hypergeometric_overlap(none, ~none)
    assert (found.shared, found.p_fewer, found.p_more) == (0, 1, 1)


def test_strata_of_base_frequency_undo_overlap_by_eligibility():
    rng = np.random.default_rng(0)
    base = np.tile(np.repeat([0.05, 0.95], 20), (4, 1)) + 0.01 * rng.random((4, 40))
    eligible = base < 0.5
    first, second = eligible & (rng.random((2, 4, 40)) < 0.5)
    assert hypergeometric_overlap(first, second).p_more < 0.01
    assert PermutedOverlap(500)(first, second, frequency_strata(base, 2)).p_more > 0.05


def test_curve_separates_disjoint_sets_from_equal_ones():
    rng = np.random.default_rng(0)
    task = 0.02 * rng.normal(size=(4, 16))
    apart, same = task.copy()[None], task.copy()[None]
    task[:, :4] += 0.5
    apart[..., 8:12] += 0.5
    same[..., :4] += 0.5
    rows = overlap_curve(task, apart, [0.3, 0.9], PermutedOverlap(200))
    assert rows.loc[0, ["task", "multilingual", "shared", "jaccard"]].tolist() == [16, 16, 0, 0]
    assert rows.loc[0, "p_fewer"] < 0.01
    assert rows.loc[0, "p_fewer_permuted"] < 0.05
    assert np.isnan(rows.loc[1, "jaccard"])
    assert overlap_curve(task, same, [0.3]).loc[0, "p_more"] < 1e-6


def test_language_experts_stand_where_the_language_has_its_own(planted):
    rates = {}
    for code, index in planted.index.items():
        counts = (index[..., None] == np.arange(12)).any(-2).sum(1)
        rates[code] = activation_frequency(counts, np.full(len(counts), index.shape[1]))
    sister, stranger = (frequency_difference(rates[code], rates["en"]) for code in ("sister", "stranger"))
    assert (experts_above(sister, 0.2).any(1) == [1, 1, 0, 0, 1, 1]).all()
    assert experts_above(stranger, 0.2).any(1).all()
    assert np.abs(np.stack([sister, stranger])).max() <= 1
    both = experts_above(np.stack([sister, stranger]), 0.2).any(0)
    assert (both >= experts_above(stranger, 0.2)).all()
