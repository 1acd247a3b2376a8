import numpy as np
import pytest

from mechanism.measure.documents import Documents, Domains
from mechanism.measure.importance import slot_sums
from mechanism.measure.relevance import (
    expert_activity,
    gate_score,
    peak,
    super_experts,
    token_ratio,
)


def test_scores_equal_their_equations_token_by_token():
    rng = np.random.default_rng(0)
    document = np.repeat([0, 1, 2], [3, 5, 2])
    index = rng.permuted(np.tile(np.arange(4), (10, 1)), axis=1)[:, :2]
    weight, norm = rng.random((2, 10, 2))
    counts, weights, activity = (slot_sums(index, document, 3, 4, v)[:, None] for v in (None, weight, weight * norm))
    domains = Domains(Documents(np.array(["a", "a", "b"]), np.bincount(document), counts, weights, activity))
    dense = np.zeros((10, 4))
    np.put_along_axis(dense, index, weight, 1)
    rows = [document == d for d in range(3)]
    gate = [np.mean([dense[rows[0]].mean(0), dense[rows[1]].mean(0)], 0), dense[rows[2]].mean(0)]
    assert np.allclose(gate_score(domains)[0].T, gate)
    ratio = [(dense[r] > 0).mean(0) / 2 for r in rows]
    assert np.allclose(token_ratio(domains)[0].T, [np.mean(ratio[:2], 0), ratio[2]])
    assert np.allclose(token_ratio(domains).sum(1), 1)
    np.put_along_axis(dense, index, weight * norm, 1)
    assert np.allclose(expert_activity(domains)[0].T, [dense[:8].mean(0), dense[8:].mean(0)])


def test_peak_is_the_largest_of_the_domain():
    tokens, ones = np.ones(3, dtype=int), np.ones((3, 1, 1))
    given = Documents(np.array(["a", "a", "b"]), tokens, ones, peak=np.array([1.0, 4.0, 2.0])[:, None, None])
    assert peak(Domains(given)).tolist() == [[[4, 2]]]


def test_super_experts_stand_out_in_forming_layers():
    peaks = np.random.default_rng(0).random((10, 64))
    peaks[3, 5], peaks[8, 2] = 500, 400
    assert np.argwhere(super_experts(peaks)).tolist() == [[3, 5], [8, 2]]
    assert np.argwhere(super_experts(peaks, np.arange(10) < 5)).tolist() == [[3, 5]]
    with pytest.raises(ValueError, match="finite"):
        super_experts(np.array([[np.nan]]))
