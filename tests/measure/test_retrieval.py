import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from mechanism.measure.retrieval import parallel_similarity, retrieval_hits


def test_planted_pairs_are_found_and_shuffled_ones_are_not():
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(50, 32))
    assert retrieval_hits(keys + 0.1 * rng.normal(size=keys.shape), keys).all()
    assert retrieval_hits(np.roll(keys, 1, axis=0), keys).sum() == 0


def test_centring_removes_what_a_language_shares():
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(80, 16))
    shift = 30 * rng.normal(size=16)
    scale = np.linspace(1, 4, 80)[:, None]
    queries = meaning * scale + shift
    plain = retrieval_hits(queries, meaning).mean()
    centred = retrieval_hits(queries, meaning, centre=True).mean()
    assert plain < 0.2
    assert centred > 0.9


def test_chance_without_relation():
    rng = np.random.default_rng(0)
    hits = np.mean([retrieval_hits(rng.normal(size=(40, 8)), rng.normal(size=(40, 8))).mean() for _ in range(50)])
    assert abs(hits - 1 / 40) < 0.01


def test_similarity_equals_sklearn_and_is_held_against_other_pairs():
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(2, 6, 4))
    found, every = parallel_similarity(queries, keys), cosine_similarity(queries, keys)
    assert np.allclose(found[:, 0], np.diag(every))
    assert np.allclose(found[2, 1], np.delete(every[2], 2).mean())
    with pytest.raises(ValueError, match="two rows"):
        parallel_similarity(queries[:1], keys[:1])


def test_planted_languages_meet_in_the_middle(planted):
    def by_layer(code):
        sides = planted.hidden["en"].swapaxes(0, 1), planted.hidden[code].swapaxes(0, 1)
        return np.array([parallel_similarity(q, k).mean(0) for q, k in zip(*sides, strict=True)])

    sister, stranger = by_layer("sister"), by_layer("stranger")
    assert sister[2:4, 0].min() > 0.9
    assert sister[[0, 1, 4, 5], 0].max() < 0.9
    assert stranger[:, 0].max() < 0.8
