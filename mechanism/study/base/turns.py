"""Seconds of layers in turns, so that drift of the machine meets all alike."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from ...nn.moe import SparseMoEConfig

EMBEDDED = SparseMoEConfig(192, experts=16, top_k=2, width=128)
"""The layer of the embedded model."""


def turns(
    layers: Mapping[str, nn.Module], shape: tuple[int, ...], backward: bool, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every layer and turn, two first turns left out. Each turn has new tokens, hence new loads of the
    experts: a product compiled for one load is of no use for the next."""
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(repeats + 2):
        x = torch.randn(shape, dtype=next(next(iter(layers.values())).parameters()).dtype)
        for name, layer in layers.items():
            seconds[name].append(_once(layer, x, backward))
    return {name: own[2:] for name, own in seconds.items()}


def _once(layer: nn.Module, x: torch.Tensor, backward: bool) -> float:
    layer.zero_grad()
    given = x.clone().requires_grad_(backward)
    started = time.perf_counter()
    with torch.set_grad_enabled(backward):
        out = layer(given)
        if backward:
            out.backward(x)
    return time.perf_counter() - started


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """torch's threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
