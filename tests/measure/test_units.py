"""Two models on the same units: planted differences, none, and what cannot be set against each other."""

import json

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from mechanism.measure.correlation import Correlation
from mechanism.measure.evidence import Evidence, EvidenceError
from mechanism.measure.statistics import ClusterBootstrap, resampling_weights
from mechanism.measure.units import Difference, Units, UnpairedError, paired


def of_mean(values: np.ndarray) -> Units:
    return Units.mean("items", range(len(values)), values)


def of_draws(values: np.ndarray, names: str = "a b c") -> Units:
    return Units.drawn(
        "documents", names.split(), resampling_weights(len(values), 200, 0) @ values / len(values), len(values)
    )


def compare(one: np.ndarray, two: np.ndarray, units=of_mean) -> Difference:
    return paired(units(one), units(two), (float(one.mean()), float(two.mean())))


@pytest.mark.parametrize("units", [of_mean, of_draws])
def test_a_planted_difference_is_found_though_the_intervals_of_the_models_overlap(units):
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, 40)
    one, two = hard + rng.normal(0, 0.1, 40), hard + 0.15 + rng.normal(0, 0.1, 40)
    bounds = [ClusterBootstrap()(own) for own in (one, two)]
    assert bounds[0].high > bounds[1].low, "each model's own interval says nothing"
    found = compare(one, two, units)
    assert found.estimate == pytest.approx(two.mean() - one.mean())
    assert found.p < 1e-4
    assert 0 < found.low < 0.15 < found.high
    half = 2.0227 * np.std(two - one, ddof=1) / np.sqrt(40)
    assert found.high - found.estimate == pytest.approx(half, rel=0.1 if units is of_draws else 1e-4)


@pytest.mark.parametrize("units", [of_mean, of_draws])
def test_the_same_model_twice_differs_in_nothing(units):
    one = np.random.default_rng(1).normal(size=20)
    assert compare(one, one, units)[2:6] == (0.0, 0.0, 0.0, 1.0)
    assert compare(one, one * (1 + 1e-9), units).p == 1.0, "rounding on another device"


def families(count: int, effect: float = 0.0) -> np.ndarray:
    """p-values `(family, claim)` of twelve claims on binary items, skewed documents, and draws of documents."""
    rng = np.random.default_rng(2)
    found = np.empty((count, 12))
    for family in range(count):
        for claim in range(12):
            n, kind = (10, 30)[claim % 2], claim % 3
            own = rng.normal(size=n) if kind else (rng.random(n) < 0.5) * 1.0
            noise = [rng.standard_t(4, n) if kind else (rng.random(n) < 0.3) * 1.0 for _ in range(2)]
            sides = [np.abs(own - one) if kind == 0 else own + 0.5 * one for one in noise]
            found[family, claim] = compare(sides[0], sides[1] + effect, of_draws if kind == 2 else of_mean).p
    return found


def test_without_a_difference_a_page_of_claims_shows_one_in_at_most_a_twentieth_of_the_cases():
    p = families(200)
    least = 12 * p.min(1)  # the smallest of twelve after Holm's correction
    assert multipletests(p[0], method="holm")[1].min() == pytest.approx(min(1, least[0]))
    assert (least <= 0.05).mean() <= 0.05 + 1.64 * np.sqrt(0.05 * 0.95 / 200)
    assert (p.min(1) <= 0.05).mean() > 0.25, "without the correction it would"
    assert (p <= 0.05).mean() == pytest.approx(0.045, abs=0.015)


def test_a_difference_of_the_detectable_size_is_seen_in_four_of_five_cases():
    rng, seen = np.random.default_rng(3), []
    half = 2.0639 * np.sqrt(2 / 25)  # Student's, of 25 differences of two models with noise of one each
    least = Difference(0, 0, 0, -half, half, 1, 25, 0).detectable(0.01)
    for _ in range(600):
        hard, noise = rng.normal(0, 3, 25), rng.normal(0, 1, (2, 25))
        seen.append(compare(hard + noise[0], hard + noise[1] + least).p <= 0.01)
    assert np.mean(seen) == pytest.approx(0.8, abs=0.05)


def test_few_units_have_a_detectable_difference_too():
    found = compare(np.array([0.0, 1.0]), np.array([0.2, 1.6]))
    assert found.detectable(0.001) > found.detectable() > found.estimate


def test_items_of_a_cluster_count_once():
    rng = np.random.default_rng(4)
    clusters, shared = np.repeat(np.arange(8), 25), rng.normal(size=8)
    changes = shared[clusters] + rng.normal(0, 0.01, 200)
    by_item = paired(Units.mean("x", range(200), np.zeros(200)), Units.mean("x", range(200), changes), (0.0, 0.0))
    one, two = (Units.ratio("x", clusters, own, np.ones(200)) for own in (np.zeros(200), changes))
    found = paired(one, two, (0.0, 0.0))
    assert found.n == 8
    assert found.estimate == pytest.approx(by_item.estimate)
    assert (found.high - found.low) > 4 * (by_item.high - by_item.low)


def test_a_ratio_keeps_its_weights():
    ids, tops, bottoms = np.array(["b", "a", "b", "c"]), np.array([1.0, 2, 3, 0]), np.array([2.0, 4, 2, 0])
    found = Units.ratio("documents", ids, tops, bottoms)
    assert found.ids == ("a", "b"), "a unit without anything in it says nothing"
    assert found.estimate == pytest.approx(6 / 8)


def test_units_that_only_one_model_has_are_left_out():
    one = Units.mean("languages", "abcdef", [1.0, 2, 3, 4, 5, 6])
    two = Units.mean("languages", "fedcbx", [16.5, 15, 14, 13, 12, 99])
    found = paired(one, two, (0.0, 0.0))
    assert (found.n, found.left, found.first) == (5, 1, 4.0)
    assert found.second == pytest.approx(14.1)
    with pytest.raises(UnpairedError, match="2 of the languages are in both, of 6"):
        paired(one, Units.mean("languages", "efxyz", [1.0, 2, 3, 4, 5]), (0.0, 0.0))


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (Units.mean("documents", "abc", [1.0, 2, 3]), "one is of items of de, the other of documents"),
        (Units.drawn("items of de", "abc", [1.0, 2], 3), "one is of items of de, the other of items of de"),
        (Units.mean("items of de", "axy", [1.0, 2, 3]), "1 of the items of de are in both, of 3"),
    ],
)
def test_other_units_are_refused(other, match):
    with pytest.raises(UnpairedError, match=match):
        paired(Units.mean("items of de", "abc", [1.0, 2, 3]), other, (0.0, 0.0))


def test_draws_of_other_documents_are_refused():
    draws = np.arange(5.0)
    own = Units.drawn("documents", "abc", draws, 3)
    for names, n in (("acb", 3), ("abc", 2)):
        with pytest.raises(UnpairedError, match="the documents are not the same in both"):
            paired(own, Units.drawn("documents", names, draws, n), (0.0, 0.0))


def test_a_constant_difference_is_not_taken_for_more_than_its_units_can_show():
    assert compare(np.zeros(5), np.ones(5)).p == 2**-4


def test_pseudovalues_have_the_mean_and_the_spread_of_the_statistic():
    rng = np.random.default_rng(5)
    x = rng.normal(size=60)
    data = np.stack([x, 0.6 * x + 0.8 * rng.normal(size=60)], 1)
    correlation = Correlation()
    found = Units.jackknife("languages", range(60), lambda at: correlation.value(data[at]))
    assert isinstance(found, Units)
    r = correlation.value(data)
    assert found.estimate == pytest.approx(r)
    assert found.values.std(ddof=1) / np.sqrt(60) == pytest.approx((1 - r**2) / np.sqrt(60), rel=0.3)
    of_mean = Units.jackknife("languages", range(60), lambda at: float(x[at].mean()))
    assert of_mean is not None
    np.testing.assert_allclose(of_mean.values, x)
    assert Units.jackknife("languages", range(4), lambda at: np.nan if 0 not in at else 1.0) is None


def test_units_are_kept_as_plain_json():
    for own in (of_mean(np.array([1.0, 2.5])), Units.drawn("documents", "ab", [0.5, np.nan], 2)):
        again = Units.read(json.loads(json.dumps(own.plain(), allow_nan=False)))
        assert again == own
        assert again != of_mean(np.array([1.0, 2.0]))


def test_evidence_that_is_not_the_mean_of_its_units_is_refused():
    own = Evidence(1.5, 1.0, 2.0, 2, units=of_mean(np.array([1.0, 2.0])))
    assert own.checked().units is own.units
    assert own.mapped(lambda x: 100 * x - 1).checked().estimate == 149
    with pytest.raises(EvidenceError, match=r"the mean of the units is 4\.5"):
        Evidence(2.25, 1.0, 4.0, 2, units=of_mean(np.array([1.0, 8.0]))).checked()
