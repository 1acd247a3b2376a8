"""How much an output distribution changes: Kullback-Leibler divergence and change in loss from changes of logits."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

TINY = 1e-7


class Changed(NamedTuple):
    """`(row,)` float64 each: KL divergence in nats, and the change of the mean logit under the old distribution."""

    kl: Tensor
    shift: Tensor


def kl_of_change(old: Float[Tensor, "row token"], change: Float[Tensor, "row token"]) -> Changed:
    """`KL(old || new)` of next-token distributions whose logits differ by `change`, a constant in each row apart.

    With d the change less its mean under `old`, the divergence is `log(1 + sum old * (exp(d) - 1 - d))`: a sum of terms
    that are never negative, so that nothing cancels however small it is, and it is never negative. Rows below 1e-7 are
    computed in float64. `change` is overwritten.

    A row that holds NaN gives NaN.
    """
    shift = (old * change).sum(-1)
    change -= shift.unsqueeze(-1)
    surplus = (torch.expm1(change).sub_(change) * old).sum(-1)
    kl = torch.log1p(surplus.double())
    if bool((tiny := kl < TINY).any()):
        own = change[tiny].double()
        kl[tiny] = torch.log1p((torch.expm1(own).sub_(own) * old[tiny]).sum(-1))
    if bool((large := ~kl.isfinite()).any()):
        # Terms overflowed: the same divergence as a log-sum-exp, whose cancellation does not matter here.
        kl[large] = torch.logsumexp(old[large].double().log() + change[large].double(), -1).clamp_min(0)
    return Changed(kl, shift.double())


def loss_change(changed: Changed, target: Float[Tensor, "row"]) -> Float[Tensor, "row"]:
    """By how much the negative log-likelihood of a token grows, in nats; `target` is the change of its logit, before
    `kl_of_change` overwrote it."""
    return changed.kl + changed.shift - target.double()


def pick(values: Float[Tensor, "row token"], at: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
    """One value of each row."""
    return values.gather(1, at.unsqueeze(1))[:, 0]
