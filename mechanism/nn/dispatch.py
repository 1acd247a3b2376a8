"""Experts implementations for training, registered with transformers: `padded` for a CPU, `all` for a GPU.

`padded`: each expert's tokens are gathered into one segment padded to a multiple of `PAD` rows: oneDNN compiles a bf16
kernel per distinct row count, so few distinct counts mean few kernels. The grouped products are opaque custom ops, so
torch.compile sees no graph break. Padding rows are never read back; the result is that of transformers' own experts.

`all`: every expert computes every token in two large products, and the weights of those not selected are zero. It costs
experts / slots times the operations and no sort, no copy and no synchronisation with the host, which is what a small
model's step on a GPU waits for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

PAD = 32
_STATIC: ContextVar[bool] = ContextVar("static", default=False)


@contextmanager
def static_shapes() -> Iterator[None]:
    """Inside, layers neither look at values on the host nor let shapes depend on them, so that a CUDA graph can hold
    them: `nn.Experts` computes `all`, and routers and experts check nothing."""
    token = _STATIC.set(True)
    try:
        yield
    finally:
        _STATIC.reset(token)


def static() -> bool:
    """Whether the call is inside `static_shapes`."""
    return not torch.compiler.is_compiling() and _STATIC.get()


def _grouped(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """`y[s:t] = x[s:t] @ weight[e].T` over consecutive segments.

    Args:
        x: `(rows, d_in)`, sorted by expert.
        weight: `(expert, d_out, d_in)`.
        counts: `(expert,)` rows per expert; rows past the sum are set to zero.
    """
    out = x.new_empty(x.shape[0], weight.shape[1])
    start = 0
    for expert, count in enumerate(counts.tolist()):
        if count:
            torch.mm(x[start : start + count], weight[expert].t(), out=out[start : start + count])
            start += count
    out[start:] = 0
    return out


def _grouped_backward(grad: Tensor, x: Tensor, weight: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `_grouped` with respect to `x` and `weight`."""
    grad = grad.contiguous()
    grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
    start = 0
    for expert, count in enumerate(counts.tolist()):
        rows = slice(start, start + count)
        if count:
            torch.mm(grad[rows], weight[expert], out=grad_x[rows])
            torch.mm(grad[rows].t(), x[rows], out=grad_weight[expert])
            start += count
        else:
            grad_weight[expert].zero_()
    grad_x[start:] = 0
    return grad_x, grad_weight


grouped_linear = torch.library.custom_op("mechanism::grouped_linear", _grouped, mutates_args=())
grouped_linear.register_fake(lambda x, weight, counts: x.new_empty(x.shape[0], weight.shape[1]))
_linear_backward = torch.library.custom_op("mechanism::grouped_linear_backward", _grouped_backward, mutates_args=())
_linear_backward.register_fake(lambda grad, x, weight, counts: (torch.empty_like(x), torch.empty_like(weight)))


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    return *_linear_backward(grad, *ctx.saved_tensors), None


grouped_linear.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.mechanism.grouped_linear, get_raw=True)
def _flops(x: Tensor, weight: Tensor, counts: Tensor, out_val: Any = None, **_: Any) -> int:
    """What `torch.utils.flop_counter` counts for the segments, their padding included."""
    return 2 * int(counts.sum()) * weight.shape[1] * weight.shape[2]


@register_flop_formula(torch.ops.mechanism.grouped_linear_backward, get_raw=True)
def _flops_backward(grad: Tensor, x: Tensor, weight: Tensor, counts: Tensor, out_val: Any = None, **_: Any) -> int:
    return 2 * _flops(x, weight, counts)


def segments(index: Tensor, experts: int, pad: int = PAD) -> tuple[Tensor, Tensor, Tensor]:
    """Place every (token, slot) in its expert's segment, padded to a multiple of `pad` rows.

    Args:
        index: `(token, slot)` expert of each slot.

    Returns:
        `source` `(rows,)` the token each row reads (0 for padding), `place` `(token * slot,)` the row of each slot,
        `padded` `(expert,)` segment lengths. `rows = token * slot + expert * pad`, whatever the routing; without
        padding (`pad = 1`) `token * slot`.
    """
    flat = index.reshape(-1)
    ordered, order = torch.sort(flat, stable=True)
    if pad == 1:
        place = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        return order // index.shape[-1], place, torch.bincount(flat, minlength=experts)
    counts = torch.zeros(experts, dtype=torch.long, device=flat.device).scatter_add(0, flat, torch.ones_like(flat))
    padded = (counts + pad - 1) // pad * pad
    shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    row = torch.arange(flat.numel(), device=flat.device) + shift[ordered]
    rows = flat.numel() + experts * pad
    source = torch.zeros(rows, dtype=torch.long, device=flat.device).scatter(0, row, order // index.shape[-1])
    place = torch.empty_like(row).scatter(0, order, row)
    return source, place, padded


class _Grouped(torch.autograd.Function):
    """`grouped_linear` without the cost of calling a custom op."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
        return _grouped(x, weight, counts)

    setup_context = staticmethod(_save)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return *_grouped_backward(grad, *ctx.saved_tensors), None


class _Take(torch.autograd.Function):
    """`x[source]`, whose gradient is gathered from each token's slots instead of scattered."""

    @staticmethod
    def forward(x: Tensor, source: Tensor, place: Tensor) -> Tensor:
        return x.index_select(0, source)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.tokens = inputs[0].shape[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        (place,) = ctx.saved_tensors
        return grad.index_select(0, place).view(ctx.tokens, -1, grad.shape[-1]).sum(1), None, None


class _Restore(torch.autograd.Function):
    """`rows[place]`, whose gradient is copied back: no two slots share a row."""

    @staticmethod
    def forward(rows: Tensor, place: Tensor) -> Tensor:
        return rows.index_select(0, place)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.rows = inputs[0].shape[0]

    @staticmethod
    def backward(ctx, grad: Tensor):
        (place,) = ctx.saved_tensors
        full = (grad.new_empty if len(place) == ctx.rows else grad.new_zeros)(ctx.rows, grad.shape[-1])
        return full.index_copy_(0, place, grad), None


def grouped(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """`grouped_linear`, by the shortest way: the custom op only where torch.compile needs it."""
    return grouped_linear(x, weight, counts) if torch.compiler.is_compiling() else _Grouped.apply(x, weight, counts)


def take(x: Tensor, source: Tensor, place: Tensor) -> Tensor:
    """The token of each row, `(token, d) -> (row, d)`; `source` and `place` as of `segments`."""
    return x.index_select(0, source) if torch.compiler.is_compiling() else _Take.apply(x, source, place)


def restore(rows: Tensor, place: Tensor) -> Tensor:
    """The row of each slot, `(row, d) -> (token * slot, d)`."""
    return rows.index_select(0, place) if torch.compiler.is_compiling() else _Restore.apply(rows, place)


def autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as autocast wants the operands of a product; the custom ops are not known to it."""
    if not torch.is_autocast_enabled(tensors[0].device.type):
        return tensors
    dtype = torch.get_autocast_dtype(tensors[0].device.type)
    return tuple(t.to(dtype) for t in tensors)


def padded_experts(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """Experts forward for transformers' registry: fused gated experts without bias, `(token, d) -> (token, d)`."""
    x, up, down = autocast(hidden_states, self.gate_up_proj, self.down_proj)
    source, place, padded = segments(top_k_index, self.num_experts)
    hidden = self._apply_gate(grouped_linear(x.index_select(0, source), up, padded))
    out = grouped_linear(hidden, down, padded).index_select(0, place)
    out = out.view(*top_k_index.shape, -1) * top_k_weights.unsqueeze(-1)
    return out.sum(1).to(hidden_states.dtype)


def every_expert(
    x: Tensor, up: Tensor, down: Tensor, index: Tensor, weights: Tensor, activation: Callable[..., Tensor]
) -> Tensor:
    """The weighted sum over slots by computing all experts: `(token, d) -> (token, d)`.

    Args:
        up: `(expert, parts * width, d)`; down: `(expert, d, width)`; index, weights: `(token, slot)`.
        activation: of the parts, each `(token, expert, width)`. They are products of their own: halves of one would
            not be contiguous, and a GPU reads those at a third of its speed.
    """
    experts, d, width = down.shape
    share = weights.new_zeros(len(x), experts).scatter_add(1, index, weights).to(down.dtype)
    parts = [F.linear(x, part.flatten(0, 1)).unflatten(1, (experts, width)) for part in up.split(width, 1)]
    hidden = activation(*parts) * share.unsqueeze(-1)
    return F.linear(hidden.flatten(1), down.transpose(0, 1).reshape(d, experts * width))


def all_experts(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """`every_expert` for transformers' registry; see `padded_experts`."""
    x, up, down = autocast(hidden_states, self.gate_up_proj, self.down_proj)
    out = every_expert(x, up, down, top_k_index, top_k_weights, lambda gate, value: self.act_fn(gate) * value)
    return out.to(hidden_states.dtype)


ALL_EXPERTS_FUNCTIONS.register("padded", padded_experts)
ALL_EXPERTS_FUNCTIONS.register("all", all_experts)
