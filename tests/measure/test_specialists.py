from dataclasses import replace

import numpy as np
import pytest

from mechanism.measure.documents import Documents
from mechanism.measure.domain_inference import DocumentBootstrap, LabelNull
from mechanism.measure.specialists import SpecialistTest

specialised = SpecialistTest(null=LabelNull(n_perm=499), bootstrap=DocumentBootstrap(n_boot=200))


def test_planted_experts_are_found_with_their_domain(specialists):
    found = specialised(specialists)
    law = found.experts.sel(layer=3, expert=[0, 1])
    assert law["specialist"].all()
    assert law["domain"].values.tolist() == ["law", "law"]
    assert (law["lift"] > 1.3).all()
    assert (found.experts["score"] > found.experts["null_mean"]).sel(layer=3, expert=[0, 1]).all()


def test_strong_ones_reach_the_fold_and_lie_above_chance(specialists):
    lift = specialised(specialists).experts["lift"].sel(layer=3, expert=[0, 1]).values
    low, high = (replace(specialised, fold=float(f))(specialists) for f in (lift.min() - 0.05, lift.max() + 0.05))
    assert low.experts["strong"].sel(layer=3, expert=[0, 1]).all()
    assert low.strong.estimate >= 2 / 16
    assert low.strong.null < low.strong.low <= low.strong.estimate <= low.strong.high
    assert low.strong.n == 1
    assert high.strong.estimate == 0
    assert low.share == high.share >= low.strong.estimate


def test_nothing_is_found_where_routing_ignores_the_domain(no_specialists):
    found = specialised(no_specialists)
    assert found.share == 0
    assert found.strong.estimate == found.strong.high == 0
    assert found.null_scores.shape == (499, 2, 8)


def test_an_unused_expert_is_reported_and_no_specialist(specialists):
    unused = specialised(specialists).experts.sel(layer=1, expert=7)
    assert unused["unused"]
    assert not unused["specialist"]
    assert np.isnan(unused["lift"])


def test_halves_split_every_domain(specialists):
    first, second = specialists.halves()
    assert (np.unique(first.domain, return_counts=True)[1] == 5).all()
    assert (np.unique(second.domain, return_counts=True)[1] == 5).all()
    assert first.tokens.sum() + second.tokens.sum() == specialists.tokens.sum()
    assert first.layers == specialists.layers
    assert {0, 1} == set(np.flatnonzero(specialised(first).experts["specialist"].sel(layer=3, expert=[0, 1])))


def test_a_domain_with_one_document_cannot_be_halved_or_resampled(specialists):
    kept = (specialists.domain != "law") | (np.arange(30) == 0)
    single = specialists.subset(kept)
    with pytest.raises(ValueError, match="'law' has a single document"):
        single.halves()
    with pytest.raises(ValueError, match=r"two documents of each domain: \['law'\]"):
        specialised(single)
    with pytest.raises(ValueError, match="at least two"):
        specialists.subset(specialists.domain == "law")


def test_an_expert_of_one_domain_alone_is_as_strong_as_can_be():
    rng = np.random.default_rng(0)
    domain = np.repeat(["a", "b", "c"], 8)
    own = np.where(domain == "a", 20, 0) + np.zeros(24, dtype=int)
    rest = rng.integers(15, 20, (24, 3))
    documents = Documents(domain, np.full(24, 60), np.concatenate([own[:, None], rest], 1)[:, None].astype(float))
    experts = specialised(documents).experts.sel(layer=0)
    assert experts["lift"].values[0] == pytest.approx(3)
    assert experts["score"].values[0] == pytest.approx(1 / 3)
    assert experts["strong"].values.tolist() == [True, False, False, False]
