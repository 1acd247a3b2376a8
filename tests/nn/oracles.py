"""Slow, obvious versions of the layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mechanism.nn.experts import Experts
from mechanism.nn.router import TopKRouter


def expert(experts: Experts, e: int, x: Tensor) -> Tensor:
    """Output of one expert."""
    inner = x @ experts.up_proj[e].T
    if experts.activation == "swiglu":
        gate, up = inner[..., : experts.width], inner[..., experts.width :]
        inner = gate * torch.sigmoid(gate) * up
    else:
        inner = {"relu": torch.relu, "gelu": F.gelu}[experts.activation](inner)
    return inner @ experts.down_proj[e].T


def mixture(experts: Experts, hidden: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Row by row, slot by slot."""
    rows = []
    for row, chosen, scales in zip(hidden, indices.tolist(), weights, strict=True):
        rows.append(sum(scale * expert(experts, e, row) for e, scale in zip(chosen, scales, strict=True)))
    return torch.stack(rows)


def routed(router: TopKRouter, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and weights of each row."""
    logits = rows @ router.weight.T
    scores = logits.softmax(-1) if router.scoring == "softmax" else 1 / (1 + (-logits).exp())
    indices = scores.argsort(-1, descending=True)[:, : router.top_k]
    weights = torch.gather(scores, 1, indices)
    return indices, weights / weights.sum(-1, keepdim=True) if router.normalise else weights


def drawn(module: torch.nn.Module, std: float = 0.5) -> Any:
    """The module in float64 with weights large enough that routing is decided."""
    module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=std)
    return module
