"""Contracts on the experts' contributions: the output is their sum, ablation removes or replaces just one of them."""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .capture import Trace
from .contributions import ExpertsInput, by_index, expert_means, experts_inputs, slot_outputs
from .errors import InterventionError
from .inside import Inside
from .interventions import Ablate, Intervention
from .probe import Probe, close, expect, identical, near
from .sites import Site


def _inputs(p: Probe, interventions: Sequence[Intervention] = (), **options: Any) -> dict[int, ExpertsInput]:
    traced = Trace(p.model, interventions, **options) if interventions else nullcontext()
    with traced, experts_inputs(p.sites) as seen:  # hooks registered later run later: these see the edited output
        p.logits()
    return seen


def output_is_sum(p: Probe) -> None:
    """The experts' output is the sum over slots of weight times that expert's own output."""
    for site in p.sites:
        seen = _inputs(p)[site.layer]
        with torch.no_grad():
            each = slot_outputs(site, seen.hidden, seen.index)
        total = (each.float() * seen.weight.float().unsqueeze(-1)).sum(1)
        what = f"{site.name}: output against the sum of contributions"
        close(total, seen.output.reshape(total.shape), p.tolerance, what)


def block_adds_experts(p: Probe) -> None:
    """The block's output is the experts' output, times one constant at most, plus what does not depend on it (shared
    experts); refused where the block transforms that sum (a norm), so that contributions do not add up there."""
    for site in p.sites:
        by_index(site)
        whole, experts = _block_output(p, site, keep=True)
        rest, _ = _block_output(p, site, keep=False)
        routed, part = (whole - rest).float().flatten(), experts.float().reshape(whole.shape).flatten()
        scale = float(routed @ part / (part @ part).clamp_min(1e-20))
        if not near(routed, scale * part, p.tolerance * 4):
            raise InterventionError(
                f"{site.name}: its block transforms the experts' output; contributions do not add up"
            )


def _block_output(p: Probe, site: Site, keep: bool) -> tuple[Tensor, Tensor]:
    """Output of a block and of its experts, the latter replaced by zeros unless kept; same input to the block."""
    seen: dict[str, Tensor] = {}

    def experts(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        seen["experts"] = output
        return output if keep else torch.zeros_like(output)

    def block(module: nn.Module, args: tuple, output: Any) -> None:
        seen["block"] = output[0] if isinstance(output, tuple) else output

    with ExitStack() as hooks:
        hooks.callback(site.experts.register_forward_hook(experts).remove)
        hooks.callback(site.block.register_forward_hook(block).remove)
        p.logits()
    return seen["block"].detach().clone(), seen["experts"].detach().clone()


def inside_adds_up(p: Probe) -> None:
    """Gate, up, activation and output found inside every expert (`Inside`) add up to what the experts give, change
    nothing, and are the same through `eager`, `batched_mm` and `grouped_mm`, where the family has them."""
    found: dict[str, dict[int, Any]] = {}
    for name in p.implementations():
        bare = p.logits()
        inside = Inside(tokens=torch.ones_like(p.mask, dtype=torch.bool))
        with Trace(p.model, inside=inside, keep=False):
            identical(p.logits(), bare, f"looking inside experts of {name}")
        found[name] = {site.layer: inside.at(site.layer) for site in p.sites}
    first, *others = found
    for name, layer in product(others, found[first]):
        one, other = found[name][layer], found[first][layer]
        if not np.array_equal(one["expert"], other["expert"]):
            break  # in low precision ties are broken otherwise, and what follows differs
        for part in ("gate", "up", "activation", "output", "contribution"):
            if part in other:
                a, b = (torch.from_numpy(values[part].values).nan_to_num() for values in (one, other))
                close(a, b, p.tolerance * 10, f"layer {layer}: {part} inside experts of {name} against {first}")


def zero_ablation_removes(p: Probe) -> None:
    """`Ablate(zero)` takes away exactly weight times the expert's output, and changes no selection in its layer."""
    for site in p.sites:
        expert = p.first(site)
        clean = _inputs(p)[site.layer]
        ablated = _inputs(p, [Ablate(((site.layer, expert),))])[site.layer]
        expect(bool(torch.equal(clean.index, ablated.index)), f"{site.name}: Ablate(zero) changed the selection")
        with torch.no_grad():
            each = slot_outputs(site, clean.hidden, clean.index).float()
        gone = (each * (clean.weight.float() * (clean.index == expert)).unsqueeze(-1)).sum(1)
        wanted = clean.output.reshape(gone.shape).float() - gone
        close(ablated.output.reshape(gone.shape), wanted, p.tolerance, f"{site.name}: Ablate(zero) against removal")


def mean_ablation_replaces(p: Probe) -> None:
    """`Ablate(mean)` puts weight times the mean output in the contribution's place."""
    means = expert_means(p.model, [{"input_ids": p.ids, "attention_mask": p.mask, "use_cache": False}])
    for site in p.sites:
        target = ((site.layer, p.first(site)),)
        clean = _inputs(p)[site.layer]
        zero = _inputs(p, [Ablate(target)])[site.layer]
        mean = _inputs(p, [Ablate(target, mode="mean")], means=means)[site.layer]
        gate = (clean.weight.float() * (clean.index == target[0][1])).sum(-1, keepdim=True)
        wanted = zero.output.reshape(len(gate), -1).float() + gate * means[site.layer][target[0][1]].to(gate.device)
        close(mean.output.reshape(wanted.shape), wanted, p.tolerance, f"{site.name}: Ablate(mean)")
