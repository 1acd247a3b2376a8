"""What rule a router follows, read off what it does: scoring, normalisation, scale, and whether logits alone select."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .seam import Routing

SCORES = {"softmax": lambda z: z.softmax(-1), "sigmoid": torch.sigmoid}
TOLERANCE = 2e-2
"""Largest relative error of a weight, wide enough for bfloat16."""


@dataclass(frozen=True)
class Rule:
    """A router's observed rule.

    Attributes:
        scoring: `softmax`, `sigmoid` or `other`.
        normalised: whether a token's weights have the same sum for every token; None when the scoring is not known.
        scale: that sum, or the factor on unnormalised scores.
        selection: `logits` if the top-k of the logits is what was selected, else `corrected` (bias, groups, table).
    """

    scoring: str
    normalised: bool | None
    scale: float
    selection: str


def infer_rule(routing: Routing) -> Rule:
    """The rule that explains observed weights.

    Softmax over all experts renormalised over the selected is the same function as softmax over the selected logits;
    both are called `softmax`, normalised.
    """
    logits, index, weight = (t.flatten(0, -2) for t in (routing.logits, routing.index, routing.weight.float()))
    used = weight != 0
    best = logits.topk(index.shape[-1], -1).indices
    follows = bool((best.sort(-1).values == index.sort(-1).values).all())
    selection = "logits" if follows else "corrected"
    total = weight.sum(-1, keepdim=True)
    constant = index.shape[-1] > 1 and bool(((total - total.mean()).abs() < TOLERANCE * total.mean().abs()).all())
    for name, score in SCORES.items():
        chosen = score(logits).gather(-1, index.clamp(0, logits.shape[-1] - 1)) * used
        shape = chosen / chosen.sum(-1, keepdim=True).clamp_min(1e-20)
        if constant and _close(weight / total, shape):
            return Rule(name, True, float(total.mean()), selection)
        ratio = float((weight[used] / chosen[used]).median()) if bool(used.any()) else 1.0
        if _close(weight, ratio * chosen):
            return Rule(name, False, ratio, selection)
    return Rule("other", None, float(total.mean()), selection)


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= TOLERANCE * b.abs() + 1e-4).all())
