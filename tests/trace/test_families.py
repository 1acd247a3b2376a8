import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mechanism.trace import attach, check
from mechanism.trace.families import FamilyError, families, tiny_config, tiny_model, wholes
from mechanism.trace.family_sizes import EXPERTS, TOP_K, VOCAB

IDS = torch.randint(3, VOCAB, (2, 12), generator=torch.Generator().manual_seed(0))
ONE_EACH = {"llama4_text": 1, "zaya": 1}
NO_INDEX = {"doge", "jetmoe", "llama4_text"}
"""Families whose experts are not handed the indices: rows of a table, sorted batches, a dense product over all."""
ROUTING_BIAS = re.compile(r"\.(router|gate)\..*bias|expert_bias|correction_bias")
BIASES = ("e_score_correction_bias", "expert_bias", "balancing_biases")


@contextmanager
def indices(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """The expert indices that each experts module is handed, in order."""
    found: list[Tensor] = []

    def note(module: nn.Module, args: tuple, kwargs: dict) -> None:
        found.extend(value for value in (*args, *kwargs.values()) if value.dtype == torch.long)

    modules = [module for name, module in model.named_modules() if name.endswith(".experts")]
    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def forward(model: PreTrainedModel) -> tuple[Tensor, list[Tensor]]:
    with indices(model) as found:
        return model(IDS).logits, found


def tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def test_families_are_found_in_the_library():
    found = families()
    assert list(found) == sorted(set(found))
    assert {"mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "dbrx", "gemma4_text", "llama4_text"} <= set(found)
    assert not {"llama", "bamba", "gemma4", "llama4", "qwen3_5_moe"} & set(found)
    assert len(found) >= 54


@pytest.mark.parametrize("family", families())
def test_every_family_is_built_and_runs(family: str):
    before = torch.get_rng_state()
    model = tiny_model(family)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) < 500_000
    assert all(tensor.isfinite().all() for tensor in tensors(model).values())
    assert all(tensor.any() for name, tensor in tensors(model).items() if ROUTING_BIAS.search(name))
    logits, index = forward(model)
    assert logits.shape == (2, 12, VOCAB)
    assert logits.isfinite().all()
    assert logits.std() > 0.01
    assert bool(index) == (family not in NO_INDEX)
    for layer in index:
        assert layer.shape == (24, ONE_EACH.get(family, TOP_K))
        assert len(layer.unique()) > EXPERTS // 4, "routing is degenerate"


@pytest.mark.parametrize("family", families())
def test_the_seed_decides_every_tensor(family: str):
    first, same, other = (tensors(tiny_model(family, seed)) for seed in (3, 3, 4))
    assert first.keys() == same.keys() == other.keys()
    assert all(torch.equal(first[name], same[name]) for name in first)
    drawn = [name for name in first if not torch.equal(first[name], other[name])]
    assert any(name.endswith(BIASES) for name in drawn) == any(name.endswith(BIASES) for name in first)
    assert any(part in name for name in drawn for part in ("router", "gate."))


@pytest.mark.parametrize("family", families())
def test_correction_biases_change_the_selection_and_nothing_else_does(family: str):
    model = tiny_model(family)
    biases = [tensor for name, tensor in tensors(model).items() if name.endswith(BIASES)]
    biased = forward(model)[1]
    for bias in biases:
        bias.data.zero_()
    free = forward(model)[1]
    assert any(not torch.equal(a, b) for a, b in zip(biased, free, strict=True)) == bool(biases)


@pytest.mark.parametrize("family", ["qwen3_moe", "inkling2_text", "gpt_oss"])
def test_dtype(family: str):
    model = tiny_model(family, dtype=torch.bfloat16)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    kept = {p.dtype for name, p in model.named_parameters() if ".gate." in name}
    assert (kept == {torch.float32}) == (family == "inkling2_text")
    assert forward(model)[0].isfinite().all()


@pytest.mark.parametrize("name", ["num_experts", "num_local_experts"])
def test_overrides_go_by_field_or_alias(name: str):
    overrides: dict[str, Any] = {name: 5, "num_hidden_layers": 2, "experts_implementation": "eager"}
    model = tiny_model("qwen3_moe", **overrides)
    assert model.get_submodule("model.layers.1.mlp.gate").weight.shape == (5, 32)
    assert model.config._experts_implementation == "eager"


def test_what_cannot_be_built_says_why():
    with pytest.raises(FamilyError, match="'llama' is no Mixture-of-Experts causal LM of transformers"):
        tiny_config("llama")
    with pytest.raises(FamilyError, match="The configuration of mixtral has no field n_group, wings"):
        tiny_config("mixtral", wings=2, n_group=1)
    with pytest.raises(FamilyError, match=r"zaya cannot be built: \w+: .*num_experts_per_tok"):
        tiny_model("zaya", num_experts_per_tok=2)
    with pytest.raises(FamilyError, match="gemma4_text cannot be built: its model has no router"):
        tiny_model("gemma4_text", enable_moe_block=False)


@pytest.mark.parametrize("family", wholes())
def test_whole_models_for_images_and_text_are_observed_and_so_are_their_text_towers(family: str):
    model = tiny_model(family)
    assert sum(p.numel() for p in model.parameters()) < 500_000
    for part in (model, model.get_decoder()):
        results = check(part)
        assert not [r for r in results if r.status == "failed"]
        assert {"passed"} == {r.status for r in results if r.contract in ("observed_identical", "forbid_forbids")}
    with attach(model) as trace, torch.no_grad():
        whole = model(input_ids=IDS, use_cache=False)
    with attach(model.get_decoder()) as tower, torch.no_grad():
        model.get_decoder()(input_ids=IDS, use_cache=False)
    assert whole.logits.shape == (2, 12, VOCAB)
    for layer, own in trace.records[0].layers.items():
        torch.testing.assert_close(own.logits, tower.records[0].layers[layer].logits)
