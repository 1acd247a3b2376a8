"""A contract that is broken is noticed: wrong routing planted into what a probe recorded."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mechanism.trace import ContractError, attach, contracts, replay_contracts
from mechanism.trace.edit import SiteEdit
from mechanism.trace.families import tiny_model
from mechanism.trace.passes import Pass
from mechanism.trace.probe import Probe
from mechanism.trace.replay import Count, Following
from mechanism.trace.seam import Selection

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


BEGIN = Following.begin
ROW = dict.fromkeys(("tokens", "unrouted", "other_tokens", "other_slots", "weight_gap"), 0)


def late(self: Following, at: Pass) -> None:
    """Every token finds the entry of the one before."""
    BEGIN(self, at)
    assert self._place is not None
    within, row, column = self._place
    self._place = within, row, (column - 1).clip(0)


SABOTAGED: dict[str, tuple[type, str, Callable[..., object], str, str]] = {
    "a token late": (
        Following, "begin", late, "own_route_identical", "changes the model's logits",
    ),
    "other weights": (
        SiteEdit, "received", lambda self, weight: weight * 1.001, "own_route_identical", "changes the model's logits",
    ),
    "no route": (
        Selection, "replaced", lambda self, index, *_: index, "other_route_followed", "layer 0: .*other experts ran",
    ),
    "equal weights": (
        SiteEdit, "received", lambda self, weight: weight * 0 + 0.5, "other_route_followed", "layer 0: .*the rule was",
    ),
    "a mask over groups": (Selection, "wanted", lambda *_: None, "other_route_followed", "layer 1: .*as if masked"),
    "an empty report": (
        Count, "row", lambda self, *_: ROW, "other_route_followed", "layer 0: .*said to be its own",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SABOTAGED)
def test_a_sabotaged_replay_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch):
    kind, method, broken, contract, message = SABOTAGED[name]
    grouped: dict[str, Any] = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 1}
    model: Any = tiny_model("deepseek_v2", **grouped) if "groups" in name else tiny_model("qwen3_moe")
    probe, run = Probe(model), getattr(replay_contracts, contract)
    run(probe)
    monkeypatch.setattr(kind, method, broken)
    with pytest.raises(ContractError, match=message):
        run(probe)


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
