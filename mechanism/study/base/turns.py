"""Seconds of cases that take turns, so that drift of the machine meets all alike."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pandas as pd
import torch
from torch import Tensor, nn

from ...nn.moe import SparseMoEConfig

EMBEDDED = SparseMoEConfig(192, experts=16, top_k=2, width=128)
"""The layer of the embedded model."""
T = TypeVar("T")


def in_turns(
    cases: Mapping[str, T], seconds: Callable[[T, int], float], repeats: int, warm: int = 2, rotate: bool = False
) -> pd.DataFrame:
    """A row for each case of each counted turn, in the order taken: `turn`, `case`, `seconds`.

    Args:
        seconds: those of a case in a turn; turns that warm up have negative numbers. See `timed`.
        repeats: counted turns; warm: turns before them; rotate: each turn begins with another case.
    """
    names, rows = list(cases), []
    for turn in range(-warm, repeats):
        first = turn % len(names) if rotate else 0
        rows += [(turn, name, seconds(cases[name], turn)) for name in names[first:] + names[:first]]
    return pd.DataFrame(rows[warm * len(names) :], columns=["turn", "case", "seconds"])


def timed(call: Callable[[], Any], device: torch.device | None = None) -> float:
    """Seconds of a call, until a GPU that it was given to has done it."""
    started = _now(device)
    call()
    return _now(device) - started


def _now(device: torch.device | None) -> float:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def by_case(table: pd.DataFrame) -> dict[str, list[float]]:
    """Seconds of each case by turn, from what `in_turns` gives."""
    return {str(case): own.tolist() for case, own in table.groupby("case", sort=False)["seconds"]}


def compared(seconds: Mapping[str, Sequence[float]], base: str, label: str = "case") -> list[dict[str, Any]]:
    """A row per case: its name under `label`, median `seconds`, and `ratio`, the median over turns of its seconds by
    those of the base in the same turn."""
    rows = []
    for name, own in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(own, seconds[base], strict=True))
        rows.append({label: name, "seconds": round(statistics.median(own), 6), "ratio": round(ratio, 4)})
    return rows


def turns(
    layers: Mapping[str, nn.Module], shape: tuple[int, ...], backward: bool, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every layer and turn. Each turn has new tokens, hence new loads of the experts: a product compiled for
    one load is of no use for the next."""

    def seconds(layer: nn.Module, turn: int) -> float:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(turn + 2))
        return layer_seconds(layer, layer, x.to(next(layer.parameters()).dtype), backward)

    return by_case(in_turns(layers, seconds, repeats))


def layer_seconds(layer: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor, backward: bool) -> float:
    """Seconds of a pass forward through a layer by one of its calls, and backward."""
    layer.zero_grad()
    given = x.clone().requires_grad_(backward)
    with torch.set_grad_enabled(backward):
        return timed(lambda: call(given).backward(x) if backward else call(given))


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """torch's threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
