import numpy as np

from mechanism.measure.retrieval import retrieval_hits


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
