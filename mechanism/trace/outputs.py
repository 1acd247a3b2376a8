"""Reading and rewriting what a router returns, whatever order and form its family returns it in."""

from typing import Any

import torch
from torch import Tensor

from .errors import RouterError
from .host import to_device
from .seam import RouterTap
from .sites import Site


def read_output(site: Site, output: Any, tap: RouterTap) -> tuple[Tensor, Tensor]:
    """`(index, weight)`, both `(token, slot)`, of a router's output; told apart by dtype, not by position.

    Raises:
        RouterError: the output has no such pair.
    """
    if site.kind == "scores":
        if tap.selected is None:
            raise RouterError(f"{site.name} selected without a top-k; it cannot be read")
        return tap.selected, output[0].gather(-1, tap.selected)
    if site.kind == "sorted":
        order, _, gates, sizes, _ = output
        classes = torch.arange(len(sizes), device=gates.device)
        expert = torch.repeat_interleave(classes, to_device(sizes, gates.device), output_size=order.numel())
        index, weight = torch.empty_like(order), torch.empty_like(gates)
        index[order], weight[order] = expert, gates
        return index.view(-1, site.top_k), weight.view(-1, site.top_k)
    if site.kind == "capacity":
        if tap.selected is None:
            raise RouterError(f"{site.name} selected without an argmax; it cannot be read")
        kept = output[0].sum(-1).reshape(-1, 1) > 0
        return tap.selected, output[1].reshape(-1, 1) * kept
    tensors = [t for t in output if isinstance(t, Tensor)] if isinstance(output, tuple) else []
    tokens = 0 if tap.logits is None else tap.logits.shape[0]
    flat = [t.reshape(tokens, -1) for t in tensors if tokens and t.numel() == tokens * site.top_k]
    found = [t for t in flat if not t.is_floating_point()], [t for t in flat if t.is_floating_point()]
    if len(found[0]) != 1 or not found[1]:
        raise RouterError(f"{site.name} does not return an index and weights per token and slot; it cannot be read")
    return found[0][0], found[1][0]


def write_output(site: Site, output: Any, index: Tensor, weight: Tensor) -> Any:
    """A router's output with other weights; for the kinds whose experts module does not receive them."""
    if site.kind == "scores":
        return (output[0].scatter(-1, index, weight.to(output[0].dtype)), *output[1:])
    if site.kind == "capacity":
        return output[0], weight.view_as(output[1]).to(output[1].dtype), *output[2:]
    order, batch, gates, sizes, logits = output
    return order, batch, weight.reshape(-1)[order].to(gates.dtype), sizes, logits


def selected_classes(site: Site, output: Any, tap: RouterTap) -> Tensor:
    """`(token, slot)` classes selected: what the top-k took if it was seen, else what the router returned. They differ
    where a family rewrites the index of a class that computes nothing (Zaya's skip)."""
    return tap.selected if tap.selected is not None else read_output(site, output, tap)[0]
