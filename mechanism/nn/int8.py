"""Experts stored in 8 bits: a signed byte a weight and a scale a row, for those experts that are chosen."""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .dispatch import segments
from .errors import LayerError
from .experts import ACTIVATIONS, Experts, Inside, halves

KERNELS = ("dequantise", "int8")


def quantise_rows(
    weight: Float[Tensor, "*stack rows columns"],
) -> tuple[Int[Tensor, "*stack rows columns"], Float[Tensor, "*stack rows"]]:
    """Each row rounded to 255 levels whose largest is its largest absolute value: int8 values and scales. A row of
    zeros has the scale 1 and is kept exactly.

    Raises:
        LayerError: a weight is not finite.
    """
    if not bool(torch.isfinite(weight).all()):
        raise LayerError("a weight is not finite: it cannot be stored in 8 bits")
    largest = weight.abs().amax(-1)
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (weight / scale.unsqueeze(-1)).round().clamp(-127, 127).to(torch.int8), scale


def product(x: Tensor, weight: Tensor, scale: Tensor, kernel: str) -> Tensor:
    """`x @ (weight * scale).T` for int8 weights `(d_out, d_in)`.

    Args:
        kernel: `dequantise` multiplies in the type of `x`; `int8` rounds each row of `x` to 8 bits and multiplies
            integers.
    """
    if kernel == "dequantise":
        return (x @ weight.to(x.dtype).t()) * scale.to(x.dtype)
    rows, own = quantise_rows(x)
    return torch._int_mm(rows, weight.t()).to(x.dtype) * own.unsqueeze(-1) * scale.to(x.dtype)


class Int8Experts(nn.Module):
    """`Experts` of which some are stored in 8 bits; for inference.

    Calls are those of `Experts`. Scales are of the type of the weights: a row of 64 weights in float32 takes 68 bytes.

    Args:
        experts: what is stored; rare: which experts in 8 bits, the others as they are; kernel: see `product`.

    Attributes:
        rare, kept: experts by number; up8, up8_scale, down8, down8_scale: of the rare ones, in that order; up, down: of
            the kept ones.

    Raises:
        LayerError: an expert that is not there, an unknown kernel, 1.58-bit experts, or a weight that is not finite.
    """

    def __init__(self, experts: Experts, rare: Iterable[int], kernel: str = "dequantise") -> None:
        super().__init__()
        self.num_experts, self.d, self.activation, self.kernel = (
            experts.num_experts, experts.d, experts.activation, kernel
        )  # fmt: skip
        self.rare = tuple(sorted(set(rare)))
        self.kept = tuple(e for e in range(self.num_experts) if e not in self.rare)
        if kernel not in KERNELS:
            raise LayerError(f"unknown kernel {kernel!r}; use {' or '.join(KERNELS)}")
        if experts.precision != "full":
            raise LayerError(f"{experts.precision} experts are not stored in 8 bits; take experts of full precision")
        if self.rare and not 0 <= self.rare[0] <= self.rare[-1] < self.num_experts:
            raise LayerError(f"experts {self.rare} are not all there: they are numbered 0 to {self.num_experts - 1}")
        up, down = (matrices.detach() for matrices in experts.matrices())
        for name, matrices in (("up", up), ("down", down)):
            values, scale = quantise_rows(matrices[list(self.rare)])
            self.register_buffer(f"{name}8", values)
            self.register_buffer(f"{name}8_scale", scale)
            self.register_buffer(name, matrices[list(self.kept)].clone())

    def forward(
        self, hidden: Float[Tensor, "row d"], indices: Int[Tensor, "row slot"], weights: Float[Tensor, "row slot"]
    ) -> Float[Tensor, "row d"]:
        source, place, counts = segments(indices, self.num_experts, pad=1)
        out, start, one = hidden.new_empty(len(source), self.d), 0, self.inside()
        for expert, count in enumerate(counts.tolist()):
            if count:
                rows = slice(start, start + count)
                out[rows] = one(expert, hidden[source[rows]])[-1]
                start += count
        return (out[place].view(*indices.shape, -1) * weights.unsqueeze(-1)).sum(1).to(hidden.dtype)

    def inside(self) -> Inside:
        """Experts one by one; see `Experts.inside`."""

        def one(expert: int, rows: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
            inner = self._product("up", expert, rows)
            activation = ACTIVATIONS[self.activation](inner)
            return *halves(inner, self.activation), activation, self._product("down", expert, activation)

        return one

    def _product(self, name: str, expert: int, x: Tensor) -> Tensor:
        if expert in self.kept:
            return x @ self.get_buffer(name)[self.kept.index(expert)].t()
        at = self.rare.index(expert)
        return product(x, self.get_buffer(f"{name}8")[at], self.get_buffer(f"{name}8_scale")[at], self.kernel)


def saved_share(experts: Int8Experts) -> float:
    """Share of memory that the experts stored in 8 bits save against 16 a weight, their scales included.

    Raises:
        LayerError: no expert is stored in 8 bits.
    """
    if not experts.rare:
        raise LayerError("no expert is stored in 8 bits: nothing is saved")
    own = {name: buffer for name, buffer in experts.named_buffers() if "8" in name}
    weights = sum(b.numel() for name, b in own.items() if "scale" not in name)
    return 1 - sum(b.nbytes for b in own.values()) / (weights * 2)
