"""BitNet b1.58: ternary weights and 8-bit activations in the forward pass, full precision in the backward pass.

Ma et al. 2024, arXiv 2402.17764, with the forward pass of the authors' training guide ("The Era of 1-bit LLMs: Training
Tips, Code and FAQ"): a norm without gain, then the quantised product.
"""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-5


def straight_through(x: Tensor, quantised: Tensor) -> Tensor:
    """The quantised value, bit for bit, with the gradient of `x`."""
    return quantised.detach() + (x - x.detach())


def ternary(weight: Float[Tensor, "*stack rows columns"]) -> Float[Tensor, "*stack rows columns"]:
    """Each matrix rounded to {-1, 0, 1} times the mean of its absolute values (absmean; arXiv 2402.17764, eq. 1-3)."""
    scale = weight.detach().abs().mean((-2, -1), keepdim=True).clamp_min(EPSILON)
    return straight_through(weight, (weight / scale).round().clamp(-1, 1) * scale)


def absmax_int8(x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """Each row rounded to 255 levels whose largest is its largest absolute value (absmax)."""
    scale = 127 / x.detach().abs().amax(-1, keepdim=True).clamp_min(EPSILON)
    return straight_through(x, (x * scale).round().clamp(-128, 127) / scale)


def normed_int8(x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """`absmax_int8` of each row brought to a root mean square of 1."""
    return absmax_int8(F.rms_norm(x, x.shape[-1:]))


class BitLinear(nn.Linear):
    """`torch.nn.Linear` whose products are ternary weights times 8-bit activations; its weights keep full precision."""

    def forward(self, input: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        return F.linear(normed_int8(input), ternary(self.weight), self.bias)


PRECISIONS = ("full", "b1.58")


def linear(d_in: int, d_out: int, precision: str = "full", **options: Any) -> nn.Linear:
    """A linear map of a precision: `full`, or `b1.58` for `BitLinear`; without bias unless asked for."""
    return (BitLinear if precision == "b1.58" else nn.Linear)(d_in, d_out, **{"bias": False, **options})
