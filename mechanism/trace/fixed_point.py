"""Sums over tokens in fixed point: integers, so that adding them up in any order gives the same bits."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .errors import CaptureError

# Binary digits after the point: a value is kept to half a unit of the last digit. A pass's sums are exact in float64
# below 2 ** 53, all sums together in int64 below 2 ** 63; what does not fit is refused.
BITS = {"probability": 32, "probability_squared": 32, "selections": 0, "weight": 28, "entropy": 28}
_PASS, _TOTAL = 2.0**53, 2**62


def group_sums(member: Tensor, values: Tensor, bits: int) -> Tensor:
    """Fixed-point sums `(layer, group, ...)` of `(layer, token, ...)` values over the members `(group, token)`."""
    fixed = values.to(torch.float64, copy=True).mul_(2.0**bits).round_()
    return torch.einsum("gt,lt...->lg...", member.double(), fixed)


def slot_sums(member: Tensor, index: Tensor, weight: Tensor | None, classes: int) -> dict[str, Tensor]:
    """Selections, and fixed-point sums of weights, `(layer, group, class)`; a token is in one group or in none, and an
    index that is no class is not counted."""
    layers, groups = len(index), len(member)
    group = torch.where(member.any(0), member.byte().argmax(0), groups)
    column = torch.where((index < 0) | (index > classes), classes, index)
    layer = torch.arange(layers, device=index.device)[:, None, None]
    cells = ((layer * (groups + 1) + group[:, None]) * (classes + 1) + column).flatten()

    def summed(values: Tensor) -> Tensor:
        sums = values.new_zeros(layers * (groups + 1) * (classes + 1)).scatter_add_(0, cells, values.flatten())
        return sums.view(layers, groups + 1, classes + 1)[:, :groups, :classes]

    found = {"selections": summed(torch.ones_like(cells))}
    if weight is not None:
        found["weight"] = summed(weight.to(torch.float64, copy=True).mul_(2.0 ** BITS["weight"]).round_())
    return found


def check_exact(sums: np.ndarray, layers: Sequence[int], name: str) -> None:
    """Refuse sums `(layer, ...)` of a pass that are not finite, or that float64 may have rounded.

    Raises:
        CaptureError: naming the first such layer and the sum.
    """
    if not (exact := np.abs(sums) < _PASS).all():
        at = layers[int(exact.reshape(len(sums), -1).all(1).argmin())]
        raise CaptureError(f"layer {at}: the pass's sum of {name} is not finite or too large to be exact")


def check_room(sums: np.ndarray) -> None:
    """Refuse sums over all passes that leave no room in int64.

    Raises:
        CaptureError: they are full.
    """
    if (np.abs(sums) >= _TOTAL).any():
        raise CaptureError("the sums are full (a group holds some 2 ** 30 tokens); go on with fresh statistics")
