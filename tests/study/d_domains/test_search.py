"""The search for driver experts against the exact sweep."""

import numpy as np
import pandas as pd
import pytest
import torch

from mechanism.bench.sweep import bench_race
from mechanism.models.passes import encode, padding_token
from mechanism.study.d_domains import search
from mechanism.study.d_domains.domain_text import SweepConfig, passages
from mechanism.study.d_domains.effects import BatchSweep
from mechanism.study.d_domains.sweep import Plan, sweep
from mechanism.trace import find_sites

from .. import planted

SHARE, TOP = 0.2, 4  # of 2 layers of 8 experts


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What finds drivers of a planted model under a configuration, and its exact mean effects `(expert,)`, flat."""
    config = SweepConfig(tuple(planted.folders(tmp_path_factory.mktemp("texts"))), max_segments=40, modes=("zero",))
    model, tokenizer = planted.model(), planted.tokenizer()
    with torch.no_grad():
        for site in find_sites(model):  # what is planted is the routing: the experts do next to nothing
            site.experts.get_parameter("down_proj").mul_(1e5)
    exact = sweep(model, tokenizer, config).found
    mean = search.effects_of(exact["kl"].values[0], exact["tokens"].values, passages(config)).mean()
    return lambda **own: search.find_drivers(model, tokenizer, search.SearchConfig(config, SHARE, **own)), mean.ravel()


def test_with_the_whole_budget_it_is_the_exact_sweep(searched):
    """Effects of an expert in sequences that it does not serve are known to be zero; where all were looked at, the
    estimate is the exact mean."""
    find, mean = searched
    assert mean.min() > 1e-6
    found = find(budget=2.0, confidence=1 - 1e-12)
    table = found.race.table
    whole = (table["low"] == table["high"]) & (table["items"] > 0)
    assert whole.any()
    assert found.race.undecided == 0
    np.testing.assert_allclose(table["estimate"][whole], mean[whole], rtol=1e-3)
    assert ((table["low"] <= mean * 1.001) & (mean <= table["high"] * 1.001)).all()
    assert set(found.race.top) == set(np.argsort(-mean)[:TOP])


@pytest.mark.parametrize("budget", [0.4, 0.6])
def test_it_keeps_its_budget_and_decides_nothing_wrongly(searched, budget):
    find, mean = searched
    found = find(budget=budget)
    best = set(np.argsort(-mean)[:TOP])
    status = found.race.table["status"].values
    assert 0 < found.race.spent <= budget
    assert set(np.flatnonzero(status == "in")) <= best
    assert not set(np.flatnonzero(status == "out")) & best
    assert (found.drivers["layer"] * 8 + found.drivers["expert"]).tolist() == found.race.top.tolist()


def test_replayed_on_the_records_it_finds_the_drivers_for_a_tenth_of_the_cost():
    """The recorded sweeps of three training seeds, each in a hundred orders of its segments."""
    rows = bench_race("embedded", budgets=(search.SEARCH.budget,))
    assert [row["model"] for row in rows] == ["embedded", "seed1", "seed2"]
    for row in rows:
        assert row["at least"] >= 0.95
        assert row["largest"] <= 0.1
        assert row["wrong orders"] <= 1


def test_the_lower_bound_of_recall_holds():
    """Of all and of none, and in nearly all of many draws below the truth."""
    assert search.recall_bound(pd.Series(np.ones(100))) == pytest.approx(0.05**0.01)
    assert search.recall_bound(pd.Series(np.zeros(100))) == 0
    rng = np.random.default_rng(0)
    draws = rng.binomial(6, 0.95, (500, 100)) / 6
    assert np.mean([search.recall_bound(pd.Series(draw)) <= 0.95 for draw in draws]) >= 0.95


def test_an_expert_is_run_in_the_sequences_that_are_asked_for_and_no_others(tmp_path):
    """Values there are those of the whole sweep."""
    model, tokenizer = planted.model(), planted.tokenizer()
    texts = passages(SweepConfig(tuple(planted.folders(tmp_path)), max_segments=3))
    ids = encode(tokenizer, [p.text for p in texts], 32)
    plan = Plan(model, ids, padding_token(tokenizer), ("zero",))
    batch = plan.batches[0]
    whole = BatchSweep(model, *plan.padded(batch), plan.settings).run().kl[0]
    where = np.random.default_rng(0).random(whole.shape) < 0.3
    found = BatchSweep(model, *plan.padded(batch), plan.settings).run(where=where).kl[0]
    assert ((found != 0) <= where).all()
    assert (whole[where] != 0).any()
    np.testing.assert_allclose(found[where], whole[where], rtol=1e-4, atol=1e-7)
