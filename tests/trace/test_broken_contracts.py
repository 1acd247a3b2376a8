"""A contract that is broken is noticed: wrong routing planted into what a probe recorded."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mechanism.trace import ContractError, attach, contracts
from mechanism.trace.families import tiny_model
from mechanism.trace.probe import Probe

Plant = Callable[[Tensor], object]


def repeat(index: Tensor) -> None:
    index[0, 0, 1] = index[0, 0, 0]


PLANTED: dict[str, tuple[str, Plant, str]] = {
    "all weights zero": ("weight", lambda w: w.zero_(), "all weights are zero"),
    "a weight is NaN": ("weight", lambda w: w[0, 0].fill_(float("nan")), "weights are not finite"),
    "a repeated class": ("index", repeat, "repeat or are out of range"),
    "a class out of range": ("index", lambda i: i[0, 0].add_(8), "repeat or are out of range"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_selection_that_is_not_whole_is_noticed(name: str):
    field, plant, message = PLANTED[name]
    probe = Probe(tiny_model("qwen3_moe"))
    contracts.selection_is_whole(probe)
    plant(getattr(probe.record.layers[1], field))
    with pytest.raises(ContractError, match=f"layer 1: .*{message}"):
        contracts.selection_is_whole(probe)


def test_probabilities_are_not_taken_for_logits():
    probe = Probe(tiny_model("qwen3_moe"))
    contracts.logits_are_raw(probe)
    probe.record.layers[2].logits = probe.record.layers[2].logits.softmax(-1)
    with pytest.raises(ContractError, match=r"layer 2: .*probabilities, not logits"):
        contracts.logits_are_raw(probe)


def test_a_model_that_is_not_deterministic_is_refused():
    model = tiny_model("qwen3_moe")
    model.lm_head.register_forward_hook(lambda module, args, output: output + torch.rand(1))
    with pytest.raises(ContractError, match=r"observed_identical: .*not deterministic: two equal passes differ"):
        attach(model)


@pytest.mark.parametrize(("traced", "message"), [(True, "capture changes"), (False, "having captured changes")])
def test_a_trace_that_changes_the_model_is_noticed(traced: bool, message: str):
    """By its hooks while it lasts, or by what it leaves behind."""
    model = tiny_model("qwen3_moe")
    router, head = model.model.layers[0].mlp.gate, model.lm_head
    left = []

    def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        watched = len(router._forward_hooks) > 0
        left.append(watched)
        return output + 1 if watched == traced and any(left) else output

    head.register_forward_hook(hook)
    with pytest.raises(ContractError, match=message):
        attach(model)
