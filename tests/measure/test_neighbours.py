import numpy as np
import pytest
from sklearn.metrics import silhouette_samples

from mechanism.measure.neighbours import GroupTest, cosine_distance, silhouette, standardised, together

QUICK = GroupTest(n_perm=300)


def cloud(seed=0, items=60, width=8, together=8, pull=3.0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(items, width))
    points[:together, 0] += pull * width**0.5
    return points, np.arange(items) < together


def test_a_planted_cluster_is_found():
    points, member = cloud()
    found = QUICK(cosine_distance(points), member)
    assert found["purity"].value > 0.9
    assert found["purity"].value > found["purity"].null
    assert max(found[name].p for name in found) < 0.01
    assert found["purity"].n == 8


def test_random_members_are_no_cluster():
    points, _ = cloud(pull=0)
    member = np.random.default_rng(1).permutation(60) < 8
    assert min(one.p for one in QUICK(cosine_distance(points), member).values()) > 0.05


def test_a_cluster_of_a_layer_is_explained_by_its_layer():
    rng = np.random.default_rng(0)
    layer = np.repeat([0, 1, 2], 20)
    points = rng.normal(size=(60, 8)) + 5 * np.eye(8)[layer]
    member = (layer == 1) & (np.arange(60) % 2 == 0)
    distance = cosine_distance(points)
    assert QUICK(distance, member)["purity"].p < 0.01
    assert QUICK(distance, member, layer)["purity"].p > 0.05


def test_silhouette_is_that_of_sklearn():
    points, member = cloud()
    distance = cosine_distance(points)
    wanted = silhouette_samples(distance, member.astype(int), metric="precomputed")[member].mean()
    assert silhouette(distance, member) == pytest.approx(wanted)


def test_pairs_are_compared_with_pairs_of_the_same_layers():
    rng = np.random.default_rng(0)
    layer = np.repeat([0, 1, 2], 20)
    points = rng.normal(size=(60, 8)) + 5 * np.eye(8)[layer]
    drivers = np.array([3, 25, 47])
    layers_alone = together(standardised(1 - cosine_distance(points), layer), drivers)
    points[drivers] += 8 * np.eye(8)[6]
    assert abs(layers_alone) < 1.5
    assert together(standardised(1 - cosine_distance(points), layer), drivers) > 2.5


def test_standardised_pairs_have_mean_zero_and_repetitions_make_no_pair():
    rng = np.random.default_rng(1)
    layer = np.repeat([0, 1], 15)
    found = standardised(1 - cosine_distance(rng.normal(size=(30, 8))), layer)
    inner = found[:15, :15][~np.eye(15, dtype=bool)]
    assert (inner.mean(), inner.std()) == pytest.approx((0, 1))
    assert (found[:15, 15:].mean(), found[:15, 15:].std()) == pytest.approx((0, 1))
    assert together(found, np.array([2, 9, 9])) == pytest.approx(found[2, 9])
    assert np.isnan(together(found, np.array([4, 4])))


def test_bad_input():
    with pytest.raises(ValueError, match="away from zero"):
        cosine_distance(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="two members"):
        QUICK(cosine_distance(np.eye(8)), np.arange(8) < 1)
