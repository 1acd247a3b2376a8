"""The search for driver experts against the exact sweep."""

import numpy as np
import pytest

from mechanism.models.load import load_model
from mechanism.study.base.records import recorded
from mechanism.study.d_domains import search
from mechanism.study.d_domains.domain_text import SweepConfig, passages
from mechanism.study.d_domains.driver_experts import Swept
from mechanism.study.d_domains.sweep import record_key, sweep

from .. import planted

SHARE, TOP = 0.2, 4  # of 2 layers of 8 experts


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What finds drivers of a planted model under a configuration, and its exact mean effects `(expert,)`, flat."""
    config = SweepConfig(tuple(planted.folders(tmp_path_factory.mktemp("texts"))), max_segments=40, modes=("zero",))
    model, tokenizer = planted.model(), planted.tokenizer()
    exact = sweep(model, tokenizer, config).found
    mean = search.effects_of(exact["kl"].values[0], exact["tokens"].values, passages(config)).mean()
    return lambda **own: search.find_drivers(model, tokenizer, search.SearchConfig(config, SHARE, **own)), mean.ravel()


def test_with_the_whole_budget_it_is_the_exact_sweep(searched):
    """Effects of an expert in sequences that it does not serve are known to be zero; where all were looked at, the
    estimate is the exact mean."""
    find, mean = searched
    found = find(budget=1.0, confidence=1 - 1e-12)
    table = found.race.table
    whole = table["items"] == table["items"].max()
    assert whole.sum() >= TOP
    np.testing.assert_allclose(table["estimate"][whole], mean[whole], rtol=1e-4, atol=1e-7)
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


def test_replayed_on_the_record_it_finds_the_drivers_for_a_seventh_of_the_cost():
    """The embedded model's recorded sweep, in twenty orders of its segments."""
    found = recorded(*record_key("embedded"))
    assert found is not None
    races = search.replayed(Swept(found), load_model("embedded")[0], orders=20)
    assert races["recall"].mean() >= 0.9
    assert races["cost"].max() <= 0.15
