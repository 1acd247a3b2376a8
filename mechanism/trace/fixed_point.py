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


def group_sums(member: Tensor, values: Tensor, bits: int) -> np.ndarray:
    """Fixed-point sums `(layer, group, ...)` of `(layer, token, ...)` values over the members `(group, token)`."""
    fixed = values.to(torch.float64, copy=True).mul_(2.0**bits).round_()
    return torch.einsum("gt,lt...->lg...", member.double(), fixed).cpu().numpy()


def slot_sums(member: Tensor, index: Tensor, weight: Tensor | None, classes: int) -> dict[str, np.ndarray]:
    """Selections, and fixed-point sums of weights, `(layer, group, class)`; a token is in one group or in none."""
    shape = (index.shape[0], len(member), classes + 1)
    group, token = member.nonzero(as_tuple=True)
    cell = torch.arange(shape[0], device=index.device)[:, None] * shape[1] + group
    cells = (cell.unsqueeze(-1) * shape[2] + index[:, token]).flatten()
    size = shape[0] * shape[1] * shape[2]
    found = {"selections": torch.bincount(cells, minlength=size)}
    if weight is not None:
        fixed = weight[:, token].to(torch.float64, copy=True).mul_(2.0 ** BITS["weight"]).round_()
        found["weight"] = torch.bincount(cells, fixed.flatten(), minlength=size)
    return {name: sums.view(shape)[..., :classes].cpu().numpy() for name, sums in found.items()}


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
