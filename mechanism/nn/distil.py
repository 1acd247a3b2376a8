"""Experts that begin with the function of a trained dense layer: to "initialise with the traditional model".

The article's loss is the sum over experts of the distance of an expert's output from the dense layer's on the same
token. Attention, norms and embedding are copied, since a feed-forward layer means something on its own inputs only
(sparse upcycling copies the feed-forward layer as well; Komatsuzaki et al. 2023, arXiv 2212.05055).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from .errors import LayerError
from .experts import Experts
from .feedforward import FeedForward

STEPS, RATE = 200, 1e-2
"""Steps of Adam, and its learning rate, which falls to zero."""
ROWS = 256
"""Tokens that each expert sees in a step, drawn for each anew, so that experts begin unlike."""


def fit(experts: Experts, teacher: FeedForward, x: Float[Tensor, "token d"], seed: int) -> Float[Tensor, "expert 2"]:
    """Fit every expert to a dense layer on the mean squared error; `seed` is of the draws.

    Returns:
        Error of each expert on all tokens, relative to the teacher's mean square, before and after.

    Raises:
        LayerError: no tokens, or widths that do not fit.
    """
    if not len(x) or x.shape[1] != experts.d or teacher.config.hidden != experts.d:
        raise LayerError(
            f"experts of width {experts.d} cannot learn from {len(x)} tokens of width {x.shape[-1]} and a layer of "
            f"width {teacher.config.hidden}"
        )
    with torch.no_grad():
        wanted = teacher(x)
    before = _errors(experts, x, wanted)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(experts.parameters(), RATE)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        drawn = torch.randint(len(x), (experts.num_experts, ROWS), generator=generator)
        optimiser.zero_grad()
        (_each(experts, x[drawn]) - wanted[drawn]).square().mean((1, 2)).sum().backward()
        optimiser.step()
    optimiser.zero_grad()
    return torch.stack([before, _errors(experts, x, wanted)], -1)


def _each(experts: Experts, x: Float[Tensor, "expert token d"]) -> Float[Tensor, "expert token d"]:
    """Every expert on its own tokens."""
    index = torch.arange(len(x), device=x.device).repeat_interleave(x.shape[1])[:, None]
    return experts(x.flatten(0, 1), index, torch.ones_like(index, dtype=x.dtype)).view_as(x)


@torch.no_grad()
def _errors(experts: Experts, x: Tensor, wanted: Tensor) -> Float[Tensor, " expert"]:
    out = _each(experts, x.expand(experts.num_experts, *x.shape))
    return (out - wanted).square().mean((1, 2)) / wanted.square().mean()


def copy_frame(model: PreTrainedModel, dense: PreTrainedModel) -> None:
    """Copy everything but the feed-forward layers.

    Raises:
        LayerError: the two differ in more than those.
    """
    own, theirs = ({name: p for name, p in m.named_parameters() if ".mlp." not in name} for m in (model, dense))
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in theirs.items()}:
        raise LayerError("the models differ in more than their feed-forward layers: nothing was copied")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(theirs[name])


@contextmanager
def feed_forward_inputs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Inputs `(token, d)` of each decoder layer's feed-forward layer in the one pass inside the block."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen.append(args[0].detach().flatten(0, -2))

    handles = [layer.mlp.register_forward_pre_hook(keep) for layer in model.model.layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def distil(
    model: PreTrainedModel, dense: PreTrainedModel, ids: Int[Tensor, "batch pos"], seed: int
) -> Float[Tensor, "layer expert 2"]:
    """Copy the frame of a dense model and fit the experts of every layer to its feed-forward layers on a text.

    Returns:
        Relative error of each expert before and after.

    Raises:
        LayerError: see `copy_frame` and `fit`.
    """
    copy_frame(model, dense)
    with torch.no_grad(), feed_forward_inputs(dense) as inputs:
        dense(input_ids=ids, use_cache=False)
    pairs = zip(model.model.layers, dense.model.layers, inputs, strict=True)
    return torch.stack([fit(own.mlp.experts, old.mlp, x, seed) for own, old, x in pairs])
