"""Cheap statistics of experts, from one clean pass: what they are asked, what they add, what gradients say."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ...measure.relevance import forming_layers
from ...models.passes import pad, routed_passes
from ...trace import find_sites
from ...trace.continuation import CleanPass
from .effects import FIRST

ROUTING = ("selections", "weight", "probability", "entropy")
OUTPUTS = ("activity", "relative", "peak")
GRADIENTS = ("attribution", "fisher")


@torch.no_grad()
def cheap_statistics(
    model: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    padding: int,
    batch_tokens: int = 2048,
    samples: int = 0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Sums over each sequence's tokens, the opening one left out: `(sequence, layer, expert)` by name.

    Of routing: `selections`; gate `weight`; full-softmax `probability`; `entropy` of it in nats, over the tokens that
    select the expert. Of outputs: `activity`, sum of |w| ||E(x)||; `relative`, sum of ||w E(x)||^2 / ||h||^2 with h the
    hidden state after the layer; `peak`, the largest absolute output. Of gradients, with `samples`: `attribution`, the
    absolute first-order change of the loss if the expert's contribution to these tokens goes (attribution patching
    towards zero); `fisher`, half the mean square over sampled next tokens of the first-order change of their
    log-likelihood, a second-order estimate of the divergence.

    Args:
        ids: tokens of each sequence; samples: next tokens drawn for `fisher`; seed: of the draws.
    """
    sites = find_sites(model)
    experts = max(site.num_experts for site in sites)
    names = (*ROUTING, *OUTPUTS, *(GRADIENTS if samples else ()))
    sums = {name: np.zeros((len(ids), len(sites), experts)) for name in names}
    generator = torch.Generator().manual_seed(seed)

    def run(rows: Tensor, mask: Tensor) -> CleanPass:
        return CleanPass(model, rows, mask, sites, head=False, first=FIRST)

    for one in routed_passes(model, ids, padding, batch_tokens, run=run):
        clean = one.output
        slopes = _gradients(clean, samples, generator) if samples else []
        for at, site in enumerate(sites):
            own = _Layer(clean, site.layer, site.num_experts)
            parts = own.routing(one.routing(site).logits.to(one.ids.device)) | own.outputs()
            if samples:
                parts |= own.gradients([slope[at] for slope in slopes])
            for name, values in parts.items():
                sums[name][one.rows, at, : site.num_experts] = values.double().cpu().numpy()
            clean.forget(site.layer)
    return sums


class _Layer:
    """Sums of one layer of a batch over text tokens: `(sequence, expert)`."""

    def __init__(self, clean: CleanPass, layer: int, experts: int) -> None:
        self.clean, self.layer, self.experts = clean, layer, experts
        text, index = clean.acts, clean.index[layer]
        self.text, self.index = text, index
        self.kept = text.unsqueeze(-1) & (index < experts)
        self.owner = torch.arange(len(index), device=index.device)[:, None, None].expand_as(index)

    def total(self, values: Tensor) -> Tensor:
        """Sum of `(batch, pos, slot)` by sequence and expert, over text tokens."""
        sums = torch.zeros(len(self.index), self.experts, dtype=torch.float64, device=values.device)
        where = self.owner[self.kept], self.index[self.kept].long()
        return sums.index_put_(where, values[self.kept].double(), accumulate=True)

    def routing(self, logits: Tensor) -> dict[str, Tensor]:
        probs = logits.softmax(-1)
        heads = probs.unsqueeze(2).flatten(2, -2)
        entropy = -(heads * heads.clamp_min(1e-30).log()).sum(-1)
        each = entropy.repeat_interleave(self.index.shape[-1] // entropy.shape[-1], -1)
        whole = torch.einsum("bphe,bp->be", heads, self.text.to(heads)) / heads.shape[2]
        return {
            "selections": self.total(torch.ones_like(each)),
            "weight": self.total(self.clean.weight(self.layer).float()),
            "probability": whole[:, : self.experts],
            "entropy": self.total(each),
        }

    def outputs(self) -> dict[str, Tensor]:
        outputs = self.clean.outputs(self.layer).float()
        weight = self.clean.weight(self.layer).float()
        size = outputs.norm(dim=-1).reshape(self.index.shape) * weight.abs()
        hidden = self.clean.hidden(self.layer).float().square().sum(-1, keepdim=True)
        peaks = torch.zeros(len(self.index), self.experts, device=size.device)
        flat = (self.owner * self.experts + self.index.clamp(0, self.experts - 1).long())[self.kept]
        largest = outputs.abs().amax(-1).reshape(self.index.shape)[self.kept]
        peaks.view(-1).scatter_reduce_(0, flat, largest, "amax")
        relative = self.total(size.square() / hidden.clamp_min(1e-20))
        return {"activity": self.total(size), "relative": relative, "peak": peaks}

    def gradients(self, slopes: list[Tensor]) -> dict[str, Tensor]:
        """First order from the gradients at the experts' output: of the loss, then of drawn tokens."""
        change = self.clean.change(self.layer, "zero").float()
        moved = (torch.einsum("rsd,rd->rs", change, slope.reshape(len(change), -1).float()) for slope in slopes)
        loss, *drawn = (self.total(own.reshape(self.index.shape)) for own in moved)
        return {"attribution": loss.abs(), "fisher": torch.stack(drawn).square().mean(0) / 2}


@torch.enable_grad()
def _gradients(clean: CleanPass, samples: int, generator: torch.Generator) -> list[list[Tensor]]:
    """Gradients at the output of every layer's experts: of the loss, then of the log-likelihood of drawn tokens."""
    seen: list[Tensor] = []

    def hook(module: torch.nn.Module, args: tuple, output: Any) -> Tensor:
        seen.append(output if output.requires_grad else output.clone().requires_grad_())
        return seen[-1]

    handles = [site.experts.register_forward_hook(hook) for site in clean.sites.values()]
    wanted = [parameter for parameter in clean.model.parameters() if parameter.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        logits = clean.model(input_ids=clean.ids, attention_mask=clean.mask, use_cache=False).logits.float()
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for handle in handles:
            handle.remove()
    scores = logits.log_softmax(-1)
    text = clean.mask != 0
    following = F.pad(clean.ids[:, 1:], (0, 1)), text & F.pad(text[:, 1:], (0, 1))
    targets = [following]
    for _ in range(samples):
        drawn = torch.multinomial(scores.detach().exp().flatten(0, 1).cpu(), 1, generator=generator)
        targets.append((drawn.view(text.shape).to(text.device), text))
    found = []
    for number, (target, counted) in enumerate(targets):
        total = (scores.gather(-1, target.unsqueeze(-1))[..., 0] * counted).sum()
        found.append(list(torch.autograd.grad(total, seen, retain_graph=number < len(targets) - 1)))
    return found


@torch.no_grad()
def massive_layers(model: PreTrainedModel, ids: Sequence[Sequence[int]], padding: int) -> np.ndarray:
    """`(layer,)` routed layers that form massive activations, see `forming_layers`. The opening token counts."""
    sites = find_sites(model)
    rows, mask = (t.to(model.device) for t in pad(ids, padding))
    clean = CleanPass(model, rows, mask, sites, head=False)
    sizes = [clean.hidden(layer)[mask != 0].float().abs() for layer in range(len(clean.stack))]
    peaks, medians = np.array([(float(size.amax()), float(size.median())) for size in sizes]).T
    return forming_layers(peaks, medians)[[site.layer for site in sites]]
