"""Silent errors that tools of this field have made, each as a test of ours."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mechanism.nn.router import balance_loss
from mechanism.trace import (
    Ablate,
    Activate,
    CaptureError,
    Forbid,
    InterventionError,
    RoutingStats,
    ScaleWeight,
    SoftSteer,
    attach,
    find_sites,
    pairs,
    routers,
)
from mechanism.trace.attachable import warn_unsupported
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import VOCAB

IDS = torch.randint(3, VOCAB, (4, 12), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def run(model, ids=IDS, **given):
    return model(input_ids=ids, **given).logits


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "olmoe", "gemma4_text"])
def test_logits_are_not_softmaxed_already(family):
    with attach(tiny_model(family)) as trace:
        run(trace.model)
    z = trace.records[0].layers[0].logits
    assert (z < 0).any()
    assert not torch.allclose(z.sum(-1), torch.ones(()))


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "gpt_oss", "olmoe", "phimoe", "dbrx"])
def test_a_logit_edit_has_an_effect(family):
    model = tiny_model(family)
    before = run(model)
    with attach(model, [SoftSteer(pairs(s.layer, 0), strength=2.0) for s in find_sites(model)]) as trace:
        assert not torch.equal(run(model), before)
    assert trace.changes()["changed"].gt(0).any()


def test_a_hook_that_never_fires_is_an_error():
    model = tiny_model("qwen3_moe")
    site = find_sites(model)[1]
    site.block.forward = lambda hidden: torch.zeros_like(hidden)
    with attach(model, check=False) as trace, pytest.raises(CaptureError, match=r"did not run.*layer 1"):
        run(model)
    assert trace.records == []


def test_a_router_that_runs_twice_in_a_pass_is_refused():
    model = tiny_model("qwen3_moe")
    layers = model.model.layers
    layers[1].mlp = layers[0].mlp
    stats = RoutingStats()
    with attach(model, check=False, stats=stats), pytest.raises(CaptureError, match="ran twice in one pass"):
        run(model)
    assert stats.tokens.sum() == 0


def test_hidden_states_are_not_taken_for_logits():
    """As many experts as hidden units: width alone cannot tell them apart."""
    model = tiny_model("qwen3_moe", num_experts=32)
    site, seen = find_sites(model)[0], []
    site.router.register_forward_hook(lambda m, a, o: seen.append(a[0]))
    with attach(model, check=False) as trace:
        run(model)
    z = trace.records[0].layers[0].logits.flatten(0, 1)
    assert torch.equal(z, F.linear(seen[0], site.weight).detach())


def test_no_data_is_an_error_or_nan():
    model, stats = tiny_model("qwen3_moe"), RoutingStats(("en", "de"))
    with attach(model, [Forbid(pairs(0, 1))], stats=stats) as trace:
        pass
    with pytest.raises(CaptureError, match="nothing was recorded"):
        trace.dataset()
    with pytest.raises(CaptureError, match="no pass"):
        trace.changes()
    data = stats.dataset()
    for name in ("activation_rate", "probability", "weight", "entropy"):
        assert data[name].isnull().all()


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_no_sentinel_index_drops_an_expert(implementation):
    model = tiny_model("qwen3_moe")
    model.set_experts_implementation(implementation)
    seen = []
    find_sites(model)[0].experts.register_forward_hook(lambda m, a, o: seen.append(a[1]))
    with attach(model, [Ablate(pairs(0, 1))], check=False):
        run(model)
    assert ((seen[0] >= 0) & (seen[0] < 8)).all()
    assert (seen[0] == 1).any()


def test_normalisation_is_observed_not_assumed():
    assert not routers(tiny_model("olmoe"))["normalised"].any()
    assert routers(tiny_model("mixtral"))["normalised"].all()
    assert routers(tiny_model("qwen3_moe", norm_topk_prob=True))["normalised"].all()
    assert not routers(tiny_model("qwen3_moe", norm_topk_prob=False))["normalised"].any()


def test_probabilities_sum_to_one_over_experts():
    model, stats = tiny_model("qwen3_moe"), RoutingStats()
    with attach(model, stats=stats):
        run(model)
    data = stats.dataset().sel(phase="prefill", group="all")
    assert data["probability"].sum("expert").values == pytest.approx(1, abs=1e-6)
    assert data["activation_rate"].sum("expert").values == pytest.approx(2)


def test_padding_is_never_counted():
    """A ragged batch of four gives the same counts as its sequences one by one."""
    model, lengths = tiny_model("qwen3_moe"), (3, 6, 9, 12)
    mask = (torch.arange(12) < torch.tensor(lengths)[:, None]).long()
    batched, single, naive = RoutingStats(), RoutingStats(), RoutingStats()
    with attach(model, stats=batched):
        run(model, attention_mask=mask)
    with attach(model, stats=single):
        for row, length in zip(IDS, lengths, strict=True):
            run(model, row[None, :length])
    with attach(model, stats=naive):
        run(model)
    assert (batched.sums["selections"] == single.sums["selections"]).all()
    assert batched.tokens[0, 0, 0] == sum(lengths)
    share = [s.dataset()["activation_rate"].values[0, 0] / 2 for s in (single, naive)]
    assert abs(share[0] - share[1]).sum(-1).max() / 2 > 0.05


def test_scale_of_llama4_acts_on_the_input():
    with pytest.raises(InterventionError, match="input"):
        attach(tiny_model("llama4_text"), [ScaleWeight(pairs(1, 1), factor=0.5)])


def test_batching_does_not_change_who_is_selected():
    model = tiny_model("mixtral")
    with attach(model) as trace:
        run(model)
        for row in IDS:
            run(model, row[None])
    whole, *alone = trace.records
    for i, record in enumerate(alone):
        for layer, routing in record.layers.items():
            assert torch.equal(routing.index[0].sort(-1).values, whole.layers[layer].index[i].sort(-1).values)


def test_a_later_group_does_not_overwrite_an_earlier_one():
    model, stats = tiny_model("qwen3_moe"), RoutingStats(("a", "b"))
    with attach(model, stats=stats) as trace:
        for name in ("a", "b", "a"):
            trace.label(name)
            run(model)
        trace.label(["a", "b", "b", "b"])
        run(model)
    assert stats.tokens[0, :, 0].tolist() == [2 * 48 + 12, 48 + 36]
    with pytest.raises(CaptureError, match="no group c"):
        trace.label("c")
    with attach(model, stats=stats) as trace, pytest.raises(CaptureError, match="labels"):
        run(model)


def test_rows_need_a_label_each():
    model, stats = tiny_model("qwen3_moe"), RoutingStats(("a", "b"))
    with attach(model, stats=stats) as trace:
        trace.label(["a", "b", "a"])
        with pytest.raises(CaptureError, match="4 rows and 3 labels"):
            run(model)


@pytest.mark.filterwarnings("error")
def test_versions_outside_the_tested_range_warn():
    warn_unsupported("5.15.0")
    warn_unsupported("5.99.1")
    for version in ("5.14.9", "6.0.0"):
        with pytest.raises(UserWarning, match="outside"):
            warn_unsupported(version)


def test_selection_follows_through_groups_and_bias():
    """An expert in a group that the family's rule masks is selected all the same when it is forced to be."""
    model = tiny_model("deepseek_v3")
    find_sites(model)[0].router.e_score_correction_bias[7] = -5.0  # type: ignore[operator]
    with attach(model, [Activate(pairs(1, 7))]) as trace:
        run(model)
    assert (trace.records[0].layers[1].index == 7).any(-1).all()
    assert any("translated" in note for note in trace.notes)


def test_the_balance_loss_keeps_layers_apart():
    """Two layers that each use one expert are unbalanced, though together they use all."""
    sure = torch.full((4, 2), -30.0)
    first, second = sure.clone(), sure.clone()
    first[:, 0], second[:, 1] = 30, 30
    losses = [balance_loss(z, z.argmax(-1, keepdim=True)) for z in (first, second)]
    assert torch.stack(losses).mean() == pytest.approx(2)


def test_experts_without_an_identifiable_router():
    class OddExperts(nn.Module):
        def forward(self, hidden, index, weight):
            return hidden

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = OddExperts()

    with pytest.raises(Exception, match="router cannot be identified"):
        find_sites(nn.ModuleList([Block()]))
