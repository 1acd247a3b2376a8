"""Encoder-decoder models: both parts of Switch Transformers are observed, a token beyond an expert's capacity has the
weight 0, and NLLB-MoE is refused for what transformers makes of it."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from mechanism import Ablate, ForceSelection, RoutingStats, attach
from mechanism.trace.errors import InterventionError, RouterError
from mechanism.trace.families import sides, tiny_config, tiny_model
from mechanism.trace.sites import find_sites

IDS = torch.randint(3, 97, (2, 12), generator=torch.Generator().manual_seed(0))
SWITCH, NLLB = "switch_transformers", "nllb-moe"


def whole(family: str, **overrides: int) -> PreTrainedModel:
    model = AutoModelForSeq2SeqLM.from_config(tiny_config(f"{family}.encoder", **overrides)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                gain = 2.0 if "router" in name else 1.0
                parameter.normal_(0, gain * parameter.shape[1] ** -0.5, generator=generator)
    return model


@torch.no_grad()
def said(model: PreTrainedModel) -> Tensor:
    return model(input_ids=IDS, decoder_input_ids=IDS.flip(1)).logits


def test_both_parts_of_an_encoder_decoder_model_are_named():
    assert {f"{SWITCH}.encoder", f"{SWITCH}.decoder"} <= set(sides())
    for side in (f"{SWITCH}.encoder", f"{SWITCH}.decoder"):
        assert [(s.layer, s.top_k, s.num_experts) for s in find_sites(tiny_model(side))] == [(1, 1, 8), (3, 1, 8)]


def test_the_whole_model_is_observed_in_its_two_parts_and_named_if_attached_as_one():
    model = whole(SWITCH)
    with pytest.raises(RouterError, match=r"encoder-decoder model.*attach to model\.get_encoder\(\)"):
        attach(model)
    bare = said(model)
    with attach(model.get_encoder()) as source, attach(model.get_decoder()) as target:
        seen = said(model)
        with torch.no_grad():
            told = model(input_ids=IDS, decoder_input_ids=IDS.flip(1), output_router_logits=True)
    assert torch.equal(seen, bare)
    for trace, other in ((source, told.encoder_router_logits), (target, told.decoder_router_logits)):
        assert len(trace.records) == 2
        for own, logits in zip(trace.records[0].layers.values(), other, strict=True):
            torch.testing.assert_close(own.logits, logits.float())
            assert torch.equal(own.index[..., 0], logits.argmax(-1))
            torch.testing.assert_close(own.weight[..., 0], logits.softmax(-1).amax(-1))


def test_generation_routes_the_source_once_and_every_new_token_of_the_target():
    model = whole(SWITCH)
    with attach(model.get_encoder()) as source, attach(model.get_decoder()) as target:
        model.generate(IDS, max_new_tokens=4, min_new_tokens=4, do_sample=False, decoder_start_token_id=0)
    assert [r.at.mask.shape for r in source.records] == [(2, 12)]
    assert [r.at.phase for r in target.records] == ["prefill", "decode", "decode", "decode"]
    assert [int(r.at.position[0, -1]) for r in target.records] == [0, 1, 2, 3]


def received(model: PreTrainedModel) -> tuple[list[Tensor], list]:
    """What each layer's experts were given: for each token the experts that it was sent to."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda module, args: found.append(args[1].reshape(2, 12, -1)))
        for name, module in model.named_modules()
        if name.endswith(".experts")
    ]
    return found, hooks


def test_a_token_beyond_what_an_expert_has_room_for_has_the_weight_zero():
    model = tiny_model(f"{SWITCH}.encoder", expert_capacity=2)
    found, hooks = received(model)
    stats = RoutingStats(groups=("a",))
    with attach(model, stats=stats) as trace, torch.no_grad():
        found.clear()
        model(input_ids=IDS)
    for hook in hooks:
        hook.remove()
    dropped = [given.sum(-1) == 0 for given in found]
    assert all(bool(d.any()) and not bool(d.all()) for d in dropped)
    for routing, given, drop in zip(trace.records[0].layers.values(), found, dropped, strict=True):
        assert torch.equal(routing.weight[..., 0] == 0, drop)
        assert torch.equal(routing.index[..., 0][~drop], given.argmax(-1)[~drop])


def test_a_forced_expert_has_its_own_probability_for_a_weight_and_no_more_room():
    model = tiny_model(f"{SWITCH}.encoder", expert_capacity=5)
    with attach(model, [ForceSelection(((1, 3),))]) as trace, torch.no_grad():
        model(input_ids=IDS)
    forced = trace.records[0].layers[1]
    assert bool((forced.index == 3).all())
    torch.testing.assert_close(forced.weight[:, :5, 0], forced.logits.softmax(-1)[:, :5, 3])
    assert not forced.weight[:, 5:].any()


def test_ablation_removes_an_expert_and_what_is_not_possible_is_refused():
    model = tiny_model(f"{SWITCH}.decoder")
    with torch.no_grad():
        bare = model(input_ids=IDS).last_hidden_state
        with attach(model, [Ablate(((1, 0),), mode="zero")]):
            ablated = model(input_ids=IDS).last_hidden_state
        model.get_submodule("block.1.layer.2.mlp.experts.expert_0").wo.weight.zero_()
        without = model(input_ids=IDS).last_hidden_state
    assert not torch.equal(ablated, bare)
    torch.testing.assert_close(ablated, without)
    with pytest.raises(InterventionError, match="experts are not called with index and weights"):
        attach(model, [Ablate(((1, 0),), mode="mean")], means={1: torch.zeros(8, 32)})


def test_nllb_is_refused_for_sending_all_tokens_to_two_experts():
    model = whole(NLLB)
    with pytest.raises(RouterError, match="does not run the experts that its router selects"):
        attach(model.get_encoder())
    bare, moved = said(model), []
    experts = [module for module in model.modules() if type(module).__name__ == "NllbMoeExperts"]
    for number in range(8):
        with torch.no_grad():
            kept = [module[f"expert_{number}"].fc2.weight.clone() for module in experts]
            for module in experts:
                module[f"expert_{number}"].fc2.weight.zero_()
            moved.append(not torch.equal(said(model), bare))
            for module, weight in zip(experts, kept, strict=True):
                module[f"expert_{number}"].fc2.weight.copy_(weight)
    assert moved == [True, True, *[False] * 6]
