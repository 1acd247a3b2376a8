"""What contracts say with: a condition that has to hold, and two tensors that have to agree."""

import torch
from torch import Tensor

from .errors import ContractError


class NotApplicable(Exception):
    """The contract says nothing about this model; the reason is reported."""


def expect(condition: bool, message: str) -> None:
    """Raise a `ContractError` with the message unless the condition holds."""
    if not condition:
        raise ContractError(message)


def identical(a: Tensor, b: Tensor, what: str) -> None:
    """Logits are equal bit for bit."""
    expect(bool(torch.equal(a, b)), f"{what} changes the model's logits by up to {float((a - b).abs().max()):.3g}")


def relative_error(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((a.float() - b.float()).abs().max()) / max(float(b.float().abs().max()), 1e-6)


def near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether the relative error is within a tolerance."""
    return relative_error(a, b) <= tolerance


def close(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    """The relative error is within a tolerance."""
    expect(near(a, b, tolerance), f"{what}: relative error {relative_error(a, b):.2g} is over {tolerance:g}")
