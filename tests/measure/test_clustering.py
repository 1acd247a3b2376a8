import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import cophenet, linkage
from scipy.spatial.distance import pdist, squareform

from mechanism.measure.clustering import LabelTest, cluster, cut
from mechanism.measure.divergence import divergence_matrix

LABELS = np.array(list("aaabbbccc"))


def blobs(spread: float, seed: int = 0) -> np.ndarray:
    """Distances of nine points, three around each of three far centres."""
    rng = np.random.default_rng(seed)
    return squareform(pdist(np.repeat(10 * np.eye(3), 3, axis=0) + spread * rng.normal(size=(9, 3))))


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_tree_equals_scipy(seed):
    pairs = pdist(np.random.default_rng(seed).normal(size=(6, 3)))
    expected = cophenet(linkage(pairs, "average"), pairs)[0]
    assert np.isclose(cluster(squareform(pairs)).cophenetic, expected)


def test_planted_groups_are_found_and_absent_ones_are_not():
    test = LabelTest(n_perm=99)
    found = test(blobs(0.1), LABELS)
    assert found.p < 0.03
    assert found.value > found.null
    assert np.median([test(blobs(100.0, seed), LABELS).p for seed in range(5)]) > 0.1


def test_label_statistic_is_independent_of_the_order_of_items():
    distance, order = blobs(3.0), np.random.default_rng(0).permutation(9)
    first = LabelTest(n_perm=10)(distance, LABELS)
    second = LabelTest(n_perm=10)(distance[np.ix_(order, order)], LABELS[order])
    assert np.isclose(first.value, second.value)


def test_script_explains_a_family_that_has_no_distance_of_its_own():
    script, family = np.repeat([0, 1], 8), np.roll(np.repeat([0, 1], 8), 1)
    points = 10.0 * script[:, None] + np.random.default_rng(0).normal(size=(16, 4))
    distance = squareform(pdist(points))
    assert LabelTest(n_perm=300)(distance, family).p < 0.05
    assert LabelTest(n_perm=300)(distance, family, script).p > 0.05


def test_planted_languages_cluster_with_those_they_share_experts_with(planted):
    q = np.stack([probs.swapaxes(1, 2).mean(-2) for probs in planted.probs.values()])
    found, _ = divergence_matrix(q)
    assert cut(cluster(found[2]), 2).tolist() in ([0, 0, 1, 1], [1, 1, 0, 0])
    assert len(set(cut(cluster(found[0]), 3)[:3])) == 3


@pytest.mark.parametrize(
    ("distance", "message"),
    [
        (np.zeros((2, 2)), "three items"),
        (np.full((3, 3), np.nan), "finite"),
        (np.arange(9.0).reshape(3, 3), "symmetric"),
    ],
)
def test_what_is_no_distance_matrix_is_an_error(distance, message):
    with pytest.raises(ValueError, match=message):
        cluster(distance)


def test_labels_that_say_nothing_are_errors():
    for labels in (np.arange(9), np.zeros(9)):
        with pytest.raises(ValueError, match="two groups"):
            LabelTest()(blobs(1.0), labels)
    assert np.isnan(cluster(1 - np.eye(4)).cophenetic)
