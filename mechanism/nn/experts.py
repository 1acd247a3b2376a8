"""Routed experts: one stack of matrices, tokens sorted by expert, one product per expert that has any."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .accounting import Count, matrix
from .bitlinear import PRECISIONS, normed_int8, ternary
from .dispatch import PAD, autocast, every_expert, grouped, restore, segments, static, take
from .errors import LayerError
from .router import STD


def swiglu(x: Float[Tensor, "*rows two_width"]) -> Float[Tensor, "*rows width"]:
    """`silu(gate) * up` of the two halves of the last axis, gate first."""
    return gated(*x.chunk(2, dim=-1))


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    return F.silu(gate) * up


Inside = Callable[[int, Tensor], tuple[Tensor | None, Tensor, Tensor, Tensor]]
"""Of an expert and rows `(row, d)`: gate (None without one), up, the activation that the down projection receives, all
`(row, width)`, and the output `(row, d)`."""


def halves(inner: Tensor, activation: str) -> tuple[Tensor | None, Tensor]:
    """Gate and up of the first product of an expert."""
    return inner.chunk(2, -1) if activation == "swiglu" else (None, inner)  # type: ignore[return-value]


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "swiglu": swiglu}
MATRICES = {"relu": 2, "gelu": 2, "swiglu": 3}
"""Matrices `(d, width)` of a feed-forward layer by its activation, m of the parity formulas."""


def check_feed_forward(hidden: int, width: int, activation: str, precision: str) -> None:
    """Refuse, with a LayerError, sizes and names that no feed-forward layer has."""
    if hidden < 1 or width < 1:
        raise LayerError(f"a feed-forward layer of {hidden} x {width} cannot be built; both have to be at least 1")
    if activation not in ACTIVATIONS:
        raise LayerError(f"unknown activation {activation!r}; use {', '.join(ACTIVATIONS)}")
    if precision not in PRECISIONS:
        raise LayerError(f"unknown precision {precision!r}; use {' or '.join(PRECISIONS)}")


def count_feed_forward(hidden: int, width: int, activation: str, copies: int = 1, uses: int = 1) -> Count:
    """`copies` feed-forward networks, of which a token passes `uses`."""
    return matrix(hidden, width, copies, uses) * MATRICES[activation]


class Experts(nn.Module):
    """`num_experts` feed-forward networks without bias, fused.

    A call takes `hidden` `(row, d)`, `indices` `(row, slot)` and `weights` `(row, slot)`, and gives `(row, d)`, the sum
    over slots of weight times that expert's output.

    Args:
        num_experts, d, width: sizes; activation: `relu`, `gelu` or `swiglu`.
        precision: `full`, or `b1.58` for ternary weights, each matrix with its own scale, and 8-bit activations.

    Attributes:
        up_proj: `(expert, width, d)`, with `swiglu` `(expert, 2 * width, d)`, gate first; down_proj:
            `(expert, d, width)`.

    Raises:
        LayerError: sizes or names that cannot be; in a call an empty batch, no slot, or an index out of range.
    """

    def __init__(
        self, num_experts: int, d: int, width: int, activation: str = "swiglu", precision: str = "full"
    ) -> None:
        check_feed_forward(d, width, activation, precision)
        if num_experts < 1:
            raise LayerError(f"{num_experts} experts cannot be built; choose at least 1")
        super().__init__()
        self.num_experts, self.d, self.width = num_experts, d, width
        self.activation, self.precision = activation, precision
        self.up_proj = nn.Parameter(torch.empty(num_experts, width * (MATRICES[activation] - 1), d))
        self.down_proj = nn.Parameter(torch.empty(num_experts, d, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with standard deviation `STD`, as transformers initialises experts."""
        nn.init.normal_(self.up_proj, std=STD)
        nn.init.normal_(self.down_proj, std=STD)

    def forward(
        self, hidden: Float[Tensor, "row d"], indices: Int[Tensor, "row slot"], weights: Float[Tensor, "row slot"]
    ) -> Float[Tensor, "row d"]:
        self._check(indices)
        act, *matrices = self._precise()
        x, up, down = autocast(act(hidden), *matrices)
        activation = ACTIVATIONS[self.activation]
        if static():
            parted = gated if self.activation == "swiglu" else activation
            out = every_expert(x, up, down, indices, weights, lambda *parts: act(parted(*parts)).to(down.dtype))
            return out.to(hidden.dtype)
        source, place, counts = segments(indices, self.num_experts, _padding(x, indices, self.num_experts))
        if not torch.compiler.is_compiling():  # rows past the last segment are there for static shapes only
            source = source[: int(counts.sum())]
        inner = activation(grouped(take(x, source, place), up, counts))
        out = restore(grouped(act(inner).to(down.dtype), down, counts), place)
        return (out.view(*indices.shape, -1) * weights.unsqueeze(-1)).sum(1).to(hidden.dtype)

    def _precise(self) -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
        """What brings rows to the precision, and the matrices in it."""
        low = self.precision == "b1.58"
        up, down = map(ternary if low else _same, self.matrices())
        return normed_int8 if low else _same, up, down

    def inside(self) -> Inside:
        """Experts one by one, as `mechanism.trace` looks inside them."""
        act, *matrices = self._precise()
        up, down = autocast(*matrices)

        def one(expert: int, rows: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
            inner = F.linear(autocast(act(rows))[0], up[expert])
            activation = act(ACTIVATIONS[self.activation](inner)).to(down.dtype)
            return *halves(inner, self.activation), activation, F.linear(activation, down[expert])

        return one

    def matrices(self) -> tuple[Tensor, Tensor]:
        """The matrices of all experts as they are used: `(expert, inner, d)` and `(expert, d, width)`."""
        return self.up_proj, self.down_proj

    def _check(self, indices: Tensor) -> None:
        if indices.numel() == 0:
            what = "no expert is selected" if indices.shape[0] else "the batch is empty"
            raise LayerError(f"{what}: indices have the shape {tuple(indices.shape)}")
        if not (torch.compiler.is_compiling() or static()):
            low, high = (int(bound) for bound in torch.aminmax(indices))
            if low < 0 or high >= self.num_experts:
                raise LayerError(f"indices reach from {low} to {high}, experts from 0 to {self.num_experts - 1}")

    def extra_repr(self) -> str:
        return (
            f"num_experts={self.num_experts}, d={self.d}, width={self.width}, activation={self.activation}, "
            f"precision={self.precision}"
        )


def _same(x: Tensor) -> Tensor:
    return x


def _padding(x: Tensor, indices: Tensor, experts: int) -> int:
    """Padding pays on a CPU in bfloat16 (see `dispatch`), unless it would outweigh the rows."""
    return PAD if x.dtype == torch.bfloat16 and indices.numel() >= experts * PAD else 1
