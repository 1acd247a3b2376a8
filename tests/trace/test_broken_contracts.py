"""A contract that is broken is noticed: wrong routing planted into what a probe recorded."""

from collections.abc import Callable

import pytest
from torch import Tensor

from mechanism.trace import ContractError, contracts
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
