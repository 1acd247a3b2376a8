"""Widths and numbers of experts at which layers cost the same and hold the same.

A baseline of `E` experts of width `f`, of which a token of width `d` passes `k0`, and a multi-head layer of `h` heads
whose sub-tokens pass `k` experts each, both of feed-forward networks of `m` matrices, have equal matrix products and
equal parameters, routers and biases aside, at

    f' = (f k0 - s d / m) / k        E' = h (f E - s d / m) / f'

with `s` the square layers around the experts (head and merge: 2). For `m = 2` and `k = k0` the first is eq. 8 of
arXiv 2411.16205, `f' = f - d / k`, and both together are its eq. 9. The source's layers are SwiGLU, `m = 3`.
"""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from math import ceil, floor
from typing import Any

from .errors import LayerError
from .experts import MATRICES
from .feedforward import DenseConfig
from .moe import SparseMoEConfig
from .multihead import MultiHeadMoEConfig


@dataclass(frozen=True)
class Candidate:
    """A layer and its cost by the baseline's, routers and biases aside.

    Attributes:
        config: the layer; flops, parameters: ratios to the baseline.
    """

    config: SparseMoEConfig
    flops: Fraction
    parameters: Fraction

    @property
    def distance(self) -> Fraction:
        """How far from parity, both ratios together."""
        return abs(self.flops - 1) + abs(self.parameters - 1)

    def __str__(self) -> str:
        return (
            f"{self.config.experts} experts of width {self.config.width} (FLOPs {float(self.flops - 1):+.2%}, "
            f"parameters {float(self.parameters - 1):+.2%})"
        )


class ParityError(LayerError):
    """No layer of whole numbers is at parity.

    Attributes:
        nearest: layers that are not far from it, nearest first.
    """

    def __init__(self, message: str, nearest: tuple[Candidate, ...]) -> None:
        super().__init__(message)
        self.nearest = nearest


def solve(
    baseline: SparseMoEConfig, top_k: int, heads: int = 1, head: bool = False, merge: bool = False
) -> tuple[Fraction, Fraction]:
    """Exact width and number of experts, which need not be whole; see the module.

    Raises:
        LayerError: no slot or head; the square layers alone cost, or hold, what the baseline does.
    """
    if top_k < 1 or heads < 1:
        raise LayerError(f"top_k = {top_k} and heads = {heads} have to be at least 1")
    squares = Fraction((head + merge) * baseline.hidden, MATRICES[baseline.activation])
    width = (baseline.width * baseline.top_k - squares) / top_k
    held = baseline.width * baseline.experts - squares
    if width <= 0 or held <= 0:
        raise LayerError(
            f"{head + merge} square layers of width {baseline.hidden} cost more than {baseline.top_k} experts of width "
            f"{baseline.width}: nothing is left for experts at equal FLOPs; widen the baseline's experts"
        )
    return width, heads * held / width


def multi_head(
    baseline: SparseMoEConfig, heads: int, top_k: int, head: bool = True, merge: bool = True
) -> MultiHeadMoEConfig:
    """The multi-head layer at parity with a sparse one; everything else is the baseline's. With one slot its weights
    are not normalised.

    Raises:
        ParityError: the width or the number of experts is not whole; the nearest are offered.
        LayerError: see `solve`; heads that do not divide the width.
    """
    found = _exact(baseline, top_k, {"heads": heads, "head": head, "merge": merge})
    assert isinstance(found, MultiHeadMoEConfig)
    return found


def fine_grained(baseline: SparseMoEConfig, top_k: int) -> SparseMoEConfig:
    """The sparse layer of narrower experts at parity with a sparse one, or a ParityError as of `multi_head`."""
    return _exact(baseline, top_k, {})


def dense(baseline: SparseMoEConfig) -> DenseConfig:
    """The dense layer of a token's FLOPs, shared experts included."""
    width = baseline.top_k * baseline.width + baseline.shared_width
    return DenseConfig(baseline.hidden, width, baseline.activation, baseline.precision)


def _exact(baseline: SparseMoEConfig, top_k: int, cut: dict[str, Any]) -> SparseMoEConfig:
    width, experts = solve(baseline, top_k, **cut)
    if width.denominator == experts.denominator == 1 and experts >= top_k:
        return _layer(baseline, top_k, cut, int(width), int(experts))
    held, around = width * experts, []
    for w in {max(floor(width), 1), ceil(width)}:
        for e in {max(floor(held / w), top_k), max(ceil(held / w), top_k)}:
            layer = _layer(baseline, top_k, cut, w, e)
            flops, parameters = (Fraction(*pair) for pair in zip(_cost(layer), _cost(baseline), strict=True))
            around.append(Candidate(layer, flops, parameters))
    around.sort(key=lambda c: (c.distance, c.config.width))
    raise ParityError(
        f"parity asks for {float(experts):.2f} experts of width {float(width):.2f}, which are not whole numbers, or "
        f"fewer than top_k = {top_k}; nearest: {'; '.join(map(str, around[:3]))}",
        tuple(around),
    )


def _layer(baseline: SparseMoEConfig, top_k: int, cut: dict[str, Any], width: int, experts: int) -> SparseMoEConfig:
    normalise = baseline.normalise and top_k > 1
    sizes: dict[str, Any] = {"top_k": top_k, "width": width, "experts": experts, "normalise": normalise}
    if not cut:
        return replace(baseline, **sizes)
    own = {f.name: getattr(baseline, f.name) for f in fields(SparseMoEConfig) if f.init}
    return MultiHeadMoEConfig(**{**own, **sizes, **cut})


def _cost(config: SparseMoEConfig) -> tuple[int, int]:
    """FLOPs and parameters of experts and square layers, biases aside."""
    plain = replace(config, bias=False) if isinstance(config, MultiHeadMoEConfig) else config
    parts = [part for name, part in plain.parts().items() if name not in {"router", "shared"}]
    return sum(p.flops for p in parts), sum(p.total for p in parts)


SOURCE_BASELINE = SparseMoEConfig(768, experts=8, top_k=1, width=2048, normalise=False)
"""The sparse layer of arXiv 2411.16205: every second of 12 layers, SwiGLU."""

SOURCE_LAYERS = (
    ("SMoE", SOURCE_BASELINE),
    ("fine-grained SMoE", replace(SOURCE_BASELINE, experts=16, top_k=2, width=1024)),
    ("MH-MoE, h=2", MultiHeadMoEConfig(768, experts=40, top_k=2, width=768, heads=2, normalise=False)),
    ("MH-MoE, h=3", MultiHeadMoEConfig(768, experts=96, top_k=3, width=512, heads=3, normalise=False)),
)
"""Its layers as printed; the top-k of the fine-grained layer is not printed and follows from its width."""


def source_table() -> list[dict[str, Any]]:
    """The source's layers against exact parity with its sparse layer, a row each.

    `width`, `experts`: as printed. `width_exact`, `experts_exact`: this module's, for SwiGLU; `width_two_matrices`:
    what the printed eq. 8 gives, which counts two matrices. `multiplications`: of a token in experts and square layers.
    `parameters`: of the layer, its router included; `parameters_ratio`, `multiplications_ratio`: to the sparse layer.
    """
    base = SOURCE_BASELINE
    rows = []
    for name, layer in SOURCE_LAYERS:
        heads = isinstance(layer, MultiHeadMoEConfig) and layer.heads
        cut: dict[str, Any] = {"heads": heads, "head": True, "merge": True} if heads else {}
        width, experts = solve(base, layer.top_k, **cut)
        rows.append(
            {
                "layer": name, "top_k": layer.top_k, "width": layer.width, "width_exact": float(width),
                "width_two_matrices": float(base.width - Fraction(base.hidden, layer.top_k)) if cut else None,
                "experts": layer.experts, "experts_exact": float(experts),
                "multiplications": _cost(layer)[0] // 2, "multiplications_ratio": _cost(layer)[0] / _cost(base)[0],
                "parameters": layer.parameters(), "parameters_ratio": layer.parameters() / base.parameters(),
            }
        )  # fmt: skip
    return rows
