from dataclasses import replace

import numpy as np
import pytest

from mechanism.measure.documents import Documents, Domains
from mechanism.measure.domain_inference import DocumentBootstrap, LabelNull
from mechanism.measure.domain_table import COUNTED, WEIGHED, domain_table
from mechanism.measure.relevance import gate_score
from mechanism.measure.specialisation import Strongest, activation_rate, certainty, cwas, lift, mutual_information

null = LabelNull(n_perm=499)


def test_one_table_of_every_measure(specialists):
    table = domain_table(specialists)
    assert {metric.__name__ for metric in (*COUNTED, *dict(WEIGHED).values())} < set(table.data_vars)
    assert dict(table.sizes) == {"layer": 2, "expert": 8, "domain": 3}
    assert table["layer"].values.tolist() == [1, 3]
    assert table["documents"].sel(domain="law") == 10
    assert table["unused"].sel(layer=1, expert=7)
    assert int(table["unused"].sum()) == 1
    assert len(table.to_dataframe()) == 2 * 8 * 3


def test_what_was_not_recorded_is_left_out_or_an_error(specialists):
    bare = replace(specialists, weight=None, activity=None, peak=None)
    assert {"gate_score", "expert_activity", "peak"}.isdisjoint(domain_table(bare).data_vars)
    with pytest.raises(ValueError, match="recorded without 'weight'"):
        gate_score(Domains(bare))


@pytest.mark.parametrize("name", ["activation_rate", "cwas", "lift", "token_ratio", "gate_score", "expert_activity"])
def test_the_two_planted_specialists_come_first_in_their_domain(specialists, name):
    law = domain_table(specialists)[name].sel(layer=3, domain="law")
    assert set(law.values.argsort()[-2:].tolist()) == {0, 1}


@pytest.mark.parametrize("metric", [cwas, activation_rate, lift])
def test_null_finds_the_planted_cells_and_nothing_among_random_routing(specialists, no_specialists, metric):
    found = null(specialists, metric)
    law = found.sel(layer=3, domain="law", expert=[0, 1])
    assert (law["q"] < 0.05).all()
    assert (law["p_family"] < 0.05).all()
    assert not (found["p_family"].sel(layer=1) < 0.05).any()
    nothing = null(no_specialists, metric)
    assert not (nothing["q"] < 0.05).any()
    assert not (nothing["p_family"] < 0.05).any()


def test_certainty_of_an_expert_marks_it_in_domains_that_it_does_not_serve(specialists):
    """Why experts are tested by their strongest domain, and cells by rate or lift."""
    shunned = null(specialists, cwas).sel(layer=3, expert=0, domain="news")
    assert shunned["p"] < 0.05
    assert null(specialists, activation_rate).sel(layer=3, expert=0, domain="news")["p"] > 0.9
    strongest = null(specialists, Strongest(cwas))
    assert set(strongest["value"].sel(layer=3).values.argsort()[-2:].tolist()) == {0, 1}
    assert (strongest["q"].sel(layer=3, expert=[0, 1]) < 0.05).all()


def test_null_of_a_measure_of_the_expert(specialists, no_specialists):
    found = null(specialists, mutual_information)
    assert found["q"].dims == ("layer", "expert")
    assert (found["q"].sel(layer=3, expert=[0, 1]) < 0.05).all()
    assert not (null(no_specialists, mutual_information)["p_family"] < 0.05).any()
    assert not (null(no_specialists, Strongest(cwas))["q"] < 0.05).any()


def test_an_unused_expert_is_not_tested(specialists):
    for metric in (cwas, certainty):
        cell = null(specialists, metric).sel(layer=1, expert=7)
        assert all(np.isnan(cell[name]).all() for name in ("z", "p", "q", "p_family"))


def test_strata_keep_a_language_from_passing_for_a_domain():
    rng = np.random.default_rng(0)
    lang = np.tile(["en"] * 4 + ["sw"] * 4, 2)
    domain = np.array(["a"] * 3 + ["b"] * 1 + ["a"] * 1 + ["b"] * 3 + ["a"] * 3 + ["b"] * 1 + ["a"] * 1 + ["b"] * 3)
    rate = np.where(lang == "sw", 40, 10) + rng.integers(-3, 4, 16)
    documents = Documents(domain, np.full(16, 50), np.stack([rate, 50 - rate], -1)[:, None])
    assert float(null(documents, activation_rate)["p"].sel(expert=0, domain="b").item()) < 0.1
    assert float(null(documents, activation_rate, lang)["p"].sel(expert=0, domain="b").item()) > 0.1


def test_intervals_hold_the_value_and_keep_planted_domains_apart(specialists):
    found = DocumentBootstrap(n_boot=100)(specialists, activation_rate)
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()
    law = found.sel(layer=3, domain="law", expert=[0, 1])
    news = found.sel(layer=3, domain="news", expert=[0, 1])
    assert (law["low"] > news["high"]).all()
    found = DocumentBootstrap(n_boot=20)(specialists, lift).sel(layer=1, expert=7)
    assert np.isnan(found["low"]).all()
    single = Documents(np.array(["a", "a", "b"]), np.array([5, 5, 5]), np.ones((3, 1, 1)))
    with pytest.raises(ValueError, match=r"two documents of each domain: \['b'\]"):
        DocumentBootstrap()(single, cwas)


def test_a_domain_keeps_its_documents(specialists):
    with pytest.raises(ValueError, match="every domain"):
        Domains(specialists, np.zeros((3, 30)))
