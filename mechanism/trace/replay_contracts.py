"""Contracts on replay: a model on its own route does what it did, and on another route it follows that one."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .capture import Trace
from .contributions import ExpertsInput
from .outputs import read_output
from .probe import Probe, expect, identical
from .replay import Replay
from .rules import SCORES, infer_rule
from .seam import RouterTap
from .sites import Site

NOTHING = 1e-6
"""A probability that float16 may round to a weight of 0."""


def own_route_identical(p: Probe) -> None:
    """Replaying its own route leaves the logits bit-identical, with weights by the rule and with those recorded, in a
    padded batch and in generation; and no token is said to have gone another way."""
    mask = p.mask.clone()
    mask[1:, :4] = 0

    def whole() -> Tensor:
        return p.said(input_ids=p.ids, attention_mask=mask)

    def generated() -> Tensor:
        made = p.model.generate(  # type: ignore[operator]
            p.ids[:1], attention_mask=p.mask[:1], max_new_tokens=3, min_new_tokens=3, do_sample=False,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        return torch.cat(made.logits)

    runs: tuple[Callable[[], Tensor], ...] = (whole, generated) if p.model.can_generate() else (whole,)  # type: ignore[operator]
    for run in runs:
        with torch.no_grad(), Trace(p.model) as trace:
            alone = run()
        for weights in ("rule", "given"):
            what = f"replaying its own route ({run.__name__}, weights by {weights})"
            with torch.no_grad(), Trace(p.model, replay=Replay(trace.route(), weights)) as again:
                identical(run(), alone, what)
            differs = again.replayed()[["unrouted", "other_tokens", "other_slots", "weight_gap"]]
            expect(not differs.to_numpy().any(), f"{what} is said to change the selection or the weights")


def other_route_followed(p: Probe) -> None:
    """On a route with every expert's number one higher, exactly its experts run, with weights by the family's rule on
    the live logits, and the tokens are said to have gone another way."""
    with torch.no_grad(), Trace(p.model) as trace:
        p.logits()
    own = trace.route()
    other = {s.layer: _next(own.index[s.layer], s.num_experts) for s in p.sites}
    with torch.no_grad(), Trace(p.model, replay=replace(own, index=other, weight=None)) as again, ExitStack() as hooks:
        seen = {s.layer: _watched(s, hooks) for s in p.sites}  # hooks registered later run later: these see the edits
        p.logits()
    found, rules = again.replayed(), p.rules()
    for site in p.sites:
        wanted = torch.from_numpy(other[site.layer]).reshape(-1, site.top_k).long()
        ran = seen[site.layer]().cpu().long().reshape(wanted.shape)
        ran = torch.where(wanted < site.num_experts, ran, wanted)  # what computes nothing may have another number
        same = torch.equal(ran.sort(-1).values, wanted.sort(-1).values)
        expect(same, f"{site.name}: other experts ran than those of the replayed route")
        routing, rule = again.records[0].layers[site.layer], rules[site.layer]
        expect(bool(torch.isfinite(routing.weight).all()), f"{site.name}: weights on a replayed route are not finite")
        expect(bool(found.other_slots[site.layer] > 0), f"{site.name}: another route is said to be its own")
        if rule.scoring != "other":
            now, index = infer_rule(routing), routing.index
            same = (now.scoring, now.normalised) == (rule.scoring, rule.normalised)
            same &= abs(now.scale / rule.scale - 1) < 0.05
            expect(same, f"{site.name}: weights on a replayed route follow {now}, the rule was {rule}")
            score = SCORES[rule.scoring](routing.logits).gather(-1, index.clamp(0, site.classes - 1))
            gone = (routing.weight == 0) & (score > NOTHING) & (index < site.num_experts)
            expect(not bool(gone.any()), f"{site.name}: an expert of a replayed route has the weight 0, as if masked")


def _next(index: np.ndarray, experts: int) -> np.ndarray:
    """Every expert's number one higher, the last one's 0; classes that compute nothing and blanks stay."""
    return np.where((index >= 0) & (index < experts), (index + 1) % experts, index)


def _watched(site: Site, hooks: ExitStack) -> Callable[[], Tensor]:
    """What the experts of a site are given, once they have run: read where they are called, else off the router."""
    if site.kind in ("standard", "block"):
        experts = ExpertsInput(site)
        hooks.callback(experts.remove)
        return lambda: experts.index
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: Any) -> None:
        dense = site.kind in ("scores", "capacity")
        index = output[0].topk(site.top_k).indices if dense else read_output(site, output, RouterTap(site))[0]
        kept.append(index.reshape(-1, site.top_k))

    hooks.callback(site.router.register_forward_hook(keep).remove)
    return lambda: kept[-1]
