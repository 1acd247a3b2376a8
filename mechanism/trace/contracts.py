"""The contracts, one function each: what must hold on a model before any number about its routing is believed."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from .contributions import ExpertsInput, by_index, expert_means, slot_outputs
from .errors import ContractError, InterventionError
from .interventions import Ablate, Activate, Deactivate, Forbid, ForceSelection, Intervention, ScaleWeight, SoftSteer
from .probe import Probe
from .rules import infer_rule
from .sites import Site


class NotApplicable(Exception):
    """The contract says nothing about this model; the reason is reported."""


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _identical(a: Tensor, b: Tensor, what: str) -> None:
    _expect(bool(torch.equal(a, b)), f"{what} changes the model's logits by up to {float((a - b).abs().max()):.3g}")


def _error(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((a.float() - b.float()).abs().max()) / max(float(b.float().abs().max()), 1e-6)


def _near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return _error(a, b) <= tolerance


def _close(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    _expect(_near(a, b, tolerance), f"{what}: relative error {_error(a, b):.2g} is over {tolerance:g}")


def observed_identical(p: Probe) -> None:
    """Capture leaves the logits bit-identical, and so does having captured."""
    again = p.logits()
    _expect(bool(torch.equal(again, p.bare)), "the model is not deterministic: two equal passes differ")
    p.captured()
    _identical(p.edited, p.bare, "capture")
    _identical(p.logits(), p.bare, "having captured")


def logits_are_raw(p: Probe) -> None:
    """Captured rows are logits, not a distribution already."""
    for site in p.sites:
        z = p.record.layers[site.layer].logits
        bounded = bool(((z >= 0) & (z <= 1)).all())
        _expect(not bounded, f"{site.name}: captured logits lie in [0, 1]: probabilities, not logits")
        _expect(z.shape[-1] == site.classes, f"{site.name}: {z.shape[-1]} logits for {site.classes} classes")


def selection_is_whole(p: Probe) -> None:
    """Every token has top-k distinct classes in range and finite weights; a layer's weights are not all zero."""
    for site in p.sites:
        r = p.record.layers[site.layer]
        ordered = r.index.sort(-1).values
        distinct = bool((ordered.diff(dim=-1) != 0).all())
        in_range = bool(((r.index >= 0) & (r.index < site.classes)).all())
        _expect(
            distinct and in_range, f"{site.name}: selected classes repeat or are out of range 0..{site.classes - 1}"
        )
        _expect(bool(torch.isfinite(r.weight).all()), f"{site.name}: weights are not finite")
        _expect(bool(r.weight.any()), f"{site.name}: all weights are zero")


def weights_follow_logits(p: Probe) -> None:
    """The weights are a known function of the captured logits, or the logits at least move them."""
    for site, rule in zip(p.sites, p.rules().values(), strict=True):
        if rule.scoring == "other":
            target = ((site.layer, p.first(site)),)
            before = p.record.layers[site.layer]
            after = p.captured([SoftSteer(target, strength=-3.0)]).layers[site.layer]
            same = torch.equal(before.weight, after.weight) and torch.equal(before.index, after.index)
            _expect(not same, f"{site.name}: neither weights nor selection depend on the captured logits")


def zero_edits_identical(p: Probe) -> None:
    """Edits of strength zero leave the logits bit-identical."""
    everywhere = p.targets()
    for edit in (SoftSteer(everywhere, strength=0.0), ScaleWeight(everywhere, factor=1.0)):
        if isinstance(edit, ScaleWeight) and any(s.kind == "scores" for s in p.sites):
            continue
        p.captured([edit])
        _identical(p.edited, p.bare, f"{type(edit).__name__} of strength zero")


def _always(p: Probe, kind: type[Intervention], wanted: bool) -> None:
    for site in p.sites:
        used = p.record.layers[site.layer].index
        if wanted:
            counts = used.reshape(-1).clamp(0, site.classes - 1).bincount(minlength=site.num_experts)
            expert = int(counts[: site.num_experts].argmin())
        else:
            expert = p.first(site)
        after = p.captured([kind(((site.layer, expert),))]).layers[site.layer].index
        chosen = (after == expert).any(-1)
        word = "selected" if wanted else "left out"
        _expect(
            bool((chosen == wanted).all()),
            f"{site.name}: {kind.__name__} leaves tokens where expert {expert} is not {word}",
        )


def activation_activates(p: Probe) -> None:
    """`Activate` makes a token select the expert, always."""
    _always(p, Activate, True)


def deactivation_deactivates(p: Probe) -> None:
    """`Deactivate` makes no token select the expert."""
    _always(p, Deactivate, False)


def force_forces(p: Probe) -> None:
    """`ForceSelection` makes every token select the expert; the others keep their order."""
    _always(p, ForceSelection, True)


def forbid_forbids(p: Probe) -> None:
    """`Forbid` makes no token select the expert."""
    _always(p, Forbid, False)


def reroute_reroutes(p: Probe) -> None:
    """`Ablate(reroute)`: nobody selects the expert, every slot is filled, and where the rule is known the weights are
    the rule's on the logits without that expert."""
    rules = p.rules()
    for site in p.sites:
        expert = p.first(site)
        r = p.captured([Ablate(((site.layer, expert),), mode="reroute")]).layers[site.layer]
        _expect(not bool((r.index == expert).any()), f"{site.name}: expert {expert} is still selected after rerouting")
        rule = rules[site.layer]
        if rule.scoring != "other":
            again = infer_rule(r.logits.flatten(0, -2), r.index.flatten(0, -2), r.weight.flatten(0, -2))
            same = (again.scoring, again.normalised) == (rule.scoring, rule.normalised)
            _expect(same, f"{site.name}: rerouted weights follow {again.scoring}, the rule was {rule.scoring}")


def _inputs(p: Probe, interventions: Sequence[Intervention] = (), **options: Any) -> dict[int, ExpertsInput]:
    seen = {s.layer: ExpertsInput(s) for s in p.sites}
    try:
        if interventions:
            with p.traced(interventions, **options):
                # Hooks registered later run later: these see the edited output.
                for hook in seen.values():
                    hook.remove()
                seen = {s.layer: ExpertsInput(s) for s in p.sites}
                p.edited = p.logits()
        else:
            p.logits()
    finally:
        for hook in seen.values():
            hook.remove()
    return seen


def output_is_sum(p: Probe) -> None:
    """The experts' output is the sum over slots of weight times that expert's own output."""
    for site in p.sites:
        seen = _inputs(p)[site.layer]
        with torch.no_grad():
            each = slot_outputs(site, seen.hidden, seen.index)
        total = (each.float() * seen.weight.float().unsqueeze(-1)).sum(1)
        _close(
            total,
            seen.output.reshape(total.shape),
            p.tolerance,
            f"{site.name}: output against the sum of contributions",
        )


def block_adds_experts(p: Probe) -> None:
    """The block's output is the experts' output, times one constant at most, plus what does not depend on it (shared
    experts); refused where the block transforms that sum (a norm), so that contributions do not add up there."""
    for site in p.sites:
        by_index(site)
        whole, experts = _block_output(p, site, keep=True)
        rest, _ = _block_output(p, site, keep=False)
        routed, part = (whole - rest).float().flatten(), experts.float().reshape(whole.shape).flatten()
        scale = float(routed @ part / (part @ part).clamp_min(1e-20))
        if not _near(routed, scale * part, p.tolerance * 4):
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

    handles = [site.experts.register_forward_hook(experts), site.block.register_forward_hook(block)]
    try:
        p.logits()
    finally:
        for handle in handles:
            handle.remove()
    return seen["block"].detach().clone(), seen["experts"].detach().clone()


def zero_ablation_removes(p: Probe) -> None:
    """`Ablate(zero)` takes away exactly weight times the expert's output, and changes no selection in its layer."""
    for site in p.sites:
        expert = p.first(site)
        clean = _inputs(p)[site.layer]
        ablated = _inputs(p, [Ablate(((site.layer, expert),))])[site.layer]
        _expect(bool(torch.equal(clean.index, ablated.index)), f"{site.name}: Ablate(zero) changed the selection")
        with torch.no_grad():
            each = slot_outputs(site, clean.hidden, clean.index).float()
        gone = (each * (clean.weight.float() * (clean.index == expert)).unsqueeze(-1)).sum(1)
        wanted = clean.output.reshape(gone.shape).float() - gone
        _close(ablated.output.reshape(gone.shape), wanted, p.tolerance, f"{site.name}: Ablate(zero) against removal")


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
        _close(mean.output.reshape(wanted.shape), wanted, p.tolerance, f"{site.name}: Ablate(mean)")


def unused_has_no_effect(p: Probe) -> None:
    """Ablating an expert that no token selects changes nothing."""
    unused = []
    for site in p.sites:
        index = set(p.record.layers[site.layer].index.reshape(-1).tolist())
        unused += [(site.layer, e) for e in range(site.num_experts) if e not in index][:1]
    if unused:
        p.captured([Ablate(tuple(unused))])
        _identical(p.edited, p.bare, "ablating experts that are never selected")


def padding_is_not_routed(p: Probe) -> None:
    """Left padding changes neither the real tokens' routing nor their logits, and is not counted."""
    ids = torch.cat([p.ids[:1, :4].new_zeros(1, 4), p.ids[:1]], 1)
    mask = torch.cat([torch.zeros_like(ids[:, :4]), torch.ones_like(p.ids[:1])], 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad(), p.traced() as trace:
        short = p.model(input_ids=p.ids[:1], use_cache=False).logits
        long = p.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    alone, padded = trace.records
    _expect(int(padded.at.mask.sum()) == p.ids.shape[1], "padding tokens are counted as real")
    if not _near(short, long[:, 4:], p.loose):
        raise NotApplicable("the family itself gives a padded sequence other logits; its padding is still not counted")
    for site in p.sites:
        a, b = alone.layers[site.layer], padded.layers[site.layer]
        _close(b.logits[:, 4:], a.logits, p.loose, f"{site.name}: router logits of a padded sequence")


def generation_is_told_apart(p: Probe) -> None:
    """In generation the prompt is prefill, every further token decode, and decoded routing is that of a whole pass."""
    with torch.no_grad(), p.traced() as trace:
        made = p.model.generate(  # type: ignore[operator]
            p.ids[:1], attention_mask=p.mask[:1], max_new_tokens=3, min_new_tokens=3, do_sample=False,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        phases = [r.at.phase for r in trace.records]
        if all(r.at.mask.shape[1] > 1 for r in trace.records):
            raise NotApplicable("the family generates without a cache: every step is a whole pass")
        _expect(phases == ["prefill", "decode", "decode"], f"generation of three tokens was seen as {phases}")
        logits = p.model(input_ids=made.sequences, use_cache=False).logits[0, p.ids.shape[1] - 1 : -1]
    own = torch.cat(made.logits).float()
    if not _near(own, logits, p.loose):
        raise NotApplicable("the family itself decodes other logits than a whole pass gives; phases are told apart")
    whole = trace.records[-1]
    for i, record in enumerate(trace.records[1:-1], p.ids.shape[1]):
        _expect(
            int(record.at.position[0, -1]) == i,
            f"decoded token {i} stands at position {int(record.at.position[0, -1])}",
        )
        for site in p.sites:
            a, b = record.layers[site.layer].logits[0, -1], whole.layers[site.layer].logits[0, i]
            _close(a, b, p.loose * 4, f"{site.name}: router logits decoded against a whole pass")


def restored_after_error(p: Probe) -> None:
    """After an error inside a pass the model is as before."""

    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    handle = p.sites[-1].experts.register_forward_hook(fail)
    try:
        with p.traced([Ablate(p.targets()[:1])]) as trace:
            with suppress(ZeroDivisionError):
                p.logits()
            _expect(not trace.records, "a pass that failed was recorded")
    finally:
        handle.remove()
    _identical(p.logits(), p.bare, "an error inside a traced pass")


def implementations_agree(p: Probe) -> None:
    """`eager`, `batched_mm` and `grouped_mm` experts see the same routing, also under zero ablation."""
    before = getattr(getattr(p.model, "config", None), "_experts_implementation", None)
    edit, found = [Ablate(p.targets()[:1])], {}
    try:
        for name in ("eager", "batched_mm", "grouped_mm"):
            p.model.set_experts_implementation(name)  # type: ignore[operator]
            p.captured(edit)
            found[name] = p.edited
        p.model.set_experts_implementation(before or "grouped_mm")  # type: ignore[operator]
    except ValueError as error:
        raise NotApplicable("the family has one experts implementation, its own") from error
    for name, logits in found.items():
        _close(logits, found["eager"], p.tolerance * 10, f"ablated logits of {name} against eager")
