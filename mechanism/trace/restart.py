"""Passes that start in the middle of the stack: what lies below the first edited layer is computed once."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from .sites import find_sites

Forward = Callable[..., Any]


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The model's list of decoder layers.

    Raises:
        DenseModelError, RouterError: see `find_sites`.
    """
    layers = model.get_submodule(find_sites(model)[0].stack_path)
    assert isinstance(layers, nn.ModuleList)
    return layers


def one_position(model: nn.Module) -> dict[str, int]:
    """Arguments with which a pass makes logits at its last position only, where the model can; for passes whose logits
    nobody reads."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


@contextmanager
def layer_outputs(model: nn.Module, layers: Iterable[int]) -> Iterator[dict[int, Any]]:
    """What these decoder layers returned in the last pass inside the block, by layer."""
    stack = decoder_layers(model)
    found: dict[int, Any] = {}

    def keep(layer: int) -> Any:
        return stack[layer].register_forward_hook(lambda module, args, output: found.update({layer: output}))

    handles = [keep(layer) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def replaced(forwards: Sequence[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """Modules with other forwards, as long as the block lasts."""
    before = [(module, module.__dict__.get("forward")) for module, _ in forwards]
    try:
        for module, forward in forwards:
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, own in before:
            if own is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = own


@contextmanager
def restarted(model: nn.Module, layer: int, below: Any) -> Iterator[None]:
    """Let passes inside the block start at a decoder layer.

    The layers below are not run; each returns `below`, what the last of them returned in an earlier pass over the same
    tokens. Exact where a layer takes from those below it only what the last of them returns, which is for the caller to
    check on the model. Routers below do not run: attach with `first=layer`.
    """
    with replaced([(module, lambda *args, **kwargs: below) for module in decoder_layers(model)[:layer]]):
        yield
