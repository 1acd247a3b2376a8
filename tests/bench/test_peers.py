import pytest
import torch
from torch import nn

from mechanism.bench import peers as bench_peers
from mechanism.bench.peers import Subject, _measure, _sparse


def test_ours_is_repeatable_and_as_the_formula():
    table = bench_peers.bench_peers(16, 1, hidden=12, experts=4).set_index("layer")
    own = table.loc[["mechanism SparseMoE", "mechanism MultiHeadMoE"]]
    assert (own["repeat error"] == 0).all()
    assert (own["as formula"] == 1).all()
    assert own["router learns"].all()
    assert list(own["expert parameters"]) == [4 * 3 * 12 * 12, 4 * 3 * 6 * 12]


def test_a_layer_with_new_experts_in_each_call_is_found_out():
    def call(x):
        return nn.Linear(12, 12)(x)

    found = _measure(Subject(nn.Identity(), call, None, None, None), torch.randn(1, 8, 12))
    assert found["expert parameters"] == 0
    assert float(str(found["repeat error"])) > 0.01
    assert not found["router learns"]


def test_a_layer_that_drops_tokens_is_not_as_the_formula():
    whole = _sparse(12, 4)

    def call(x):
        out = whole.call(x).clone()
        out[:, ::4] = 0
        return out

    dropping = Subject(whole.module, call, whole.experts, whole.router, whole.formula)
    assert _measure(dropping, torch.randn(1, 8, 12))["as formula"] == pytest.approx(0.75)


def test_what_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(bench_peers, "_version", lambda name: None)
    assert "pip install --no-deps mh-moe st-moe-pytorch" in bench_peers.missing()
    assert len(bench_peers.bench_peers(8, 1, hidden=12, experts=4)) == 2
