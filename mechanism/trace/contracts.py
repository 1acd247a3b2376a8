"""The contracts, one function each: what must hold on a model before any number about its routing is believed."""

from contextlib import suppress
from typing import Any

import torch

from .capture import Trace
from .interventions import Ablate, Activate, Deactivate, Forbid, ForceSelection, Intervention, ScaleWeight, SoftSteer
from .probe import NotApplicable, Probe, close, expect, identical, near
from .rules import infer_rule


def observed_identical(p: Probe) -> None:
    """Capture leaves the logits bit-identical, and so does having captured."""
    after = p.logits()
    if not torch.equal(after, p.bare) or not torch.equal(p.observed, p.bare):
        expect(bool(torch.equal(p.logits(), after)), "the model is not deterministic: two equal passes differ")
    identical(p.observed, p.bare, "capture")
    identical(after, p.bare, "having captured")


def logits_are_raw(p: Probe) -> None:
    """Captured rows are logits, not a distribution already."""
    for site in p.sites:
        z = p.record.layers[site.layer].logits
        bounded = bool(((z >= 0) & (z <= 1)).all())
        expect(not bounded, f"{site.name}: captured logits lie in [0, 1]: probabilities, not logits")
        expect(z.shape[-1] == site.classes, f"{site.name}: {z.shape[-1]} logits for {site.classes} classes")


def selection_is_whole(p: Probe) -> None:
    """Every token has top-k distinct classes in range and finite weights; a layer's weights are not all zero."""
    for site in p.sites:
        r = p.record.layers[site.layer]
        ordered = r.index.sort(-1).values
        distinct = bool((ordered.diff(dim=-1) != 0).all())
        in_range = bool(((r.index >= 0) & (r.index < site.classes)).all())
        expect(distinct and in_range, f"{site.name}: selected classes repeat or are out of range 0..{site.classes - 1}")
        expect(bool(torch.isfinite(r.weight).all()), f"{site.name}: weights are not finite")
        expect(bool(r.weight.any()), f"{site.name}: all weights are zero")


def weights_follow_logits(p: Probe) -> None:
    """The weights are a known function of the captured logits, or the logits at least move them."""
    for site, rule in zip(p.sites, p.rules().values(), strict=True):
        if rule.scoring == "other":
            target = ((site.layer, p.first(site)),)
            before = p.record.layers[site.layer]
            after = p.captured([SoftSteer(target, strength=-3.0)]).layers[site.layer]
            same = torch.equal(before.weight, after.weight) and torch.equal(before.index, after.index)
            expect(not same, f"{site.name}: neither weights nor selection depend on the captured logits")


def zero_edits_identical(p: Probe) -> None:
    """Edits of strength zero leave the logits bit-identical."""
    edits: list[Intervention] = [SoftSteer(p.targets(), strength=0.0)]
    if all(s.kind != "scores" for s in p.sites):
        edits.append(ScaleWeight(p.targets(), factor=1.0))
    for edit in edits:
        p.captured([edit])
        identical(p.edited, p.bare, f"{type(edit).__name__} of strength zero")


def _always(p: Probe, kind: type[Intervention], wanted: bool) -> None:
    for site in p.sites:
        used = p.record.layers[site.layer].index
        if wanted:
            counts = used.reshape(-1).clamp(0, site.classes - 1).bincount(minlength=site.num_experts)
            expert = int(counts[: site.num_experts].argmin())
        else:
            expert = p.first(site)
        after = p.captured([kind(((site.layer, expert),))]).layers[site.layer].index
        met = bool(((after == expert).any(-1) == wanted).all())
        word = "selected" if wanted else "left out"
        expect(met, f"{site.name}: {kind.__name__} leaves tokens where expert {expert} is not {word}")


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
        expect(not bool((r.index == expert).any()), f"{site.name}: expert {expert} is still selected after rerouting")
        rule = rules[site.layer]
        if rule.scoring != "other":
            again = infer_rule(r)
            same = (again.scoring, again.normalised) == (rule.scoring, rule.normalised)
            expect(same, f"{site.name}: rerouted weights follow {again.scoring}, the rule was {rule.scoring}")


def unused_has_no_effect(p: Probe) -> None:
    """Ablating an expert that no token selects changes nothing."""
    unused = []
    for site in p.sites:
        index = set(p.record.layers[site.layer].index.reshape(-1).tolist())
        unused += [(site.layer, e) for e in range(site.num_experts) if e not in index][:1]
    if unused:
        p.captured([Ablate(tuple(unused))])
        identical(p.edited, p.bare, "ablating experts that are never selected")


def padding_is_not_routed(p: Probe) -> None:
    """Left padding changes neither the real tokens' routing nor their logits, and is not counted."""
    ids = torch.cat([p.ids[:1, :4].new_zeros(1, 4), p.ids[:1]], 1)
    mask = torch.cat([torch.zeros_like(ids[:, :4]), torch.ones_like(p.ids[:1])], 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with Trace(p.model) as trace:
        short = p.said(input_ids=p.ids[:1])
        long = p.said(input_ids=ids, attention_mask=mask, position_ids=positions)
    alone, padded = trace.records
    expect(int(padded.at.mask.sum()) == p.ids.shape[1], "padding tokens are counted as real")
    if not near(short, long[:, 4:], p.loose):
        raise NotApplicable("the family itself gives a padded sequence other logits; its padding is still not counted")
    for site in p.sites:
        a, b = alone.layers[site.layer], padded.layers[site.layer]
        close(b.logits[:, 4:], a.logits, p.loose, f"{site.name}: router logits of a padded sequence")


def generation_is_told_apart(p: Probe) -> None:
    """In generation the prompt is prefill, every further token decode, and decoded routing is that of a whole pass."""
    if not p.model.can_generate():  # type: ignore[operator]
        raise NotApplicable("the model has no head to generate with")
    with torch.no_grad(), Trace(p.model) as trace:
        made = p.model.generate(  # type: ignore[operator]
            p.ids[:1], attention_mask=p.mask[:1], max_new_tokens=3, min_new_tokens=3, do_sample=False,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
        phases = [r.at.phase for r in trace.records]
        if all(r.at.mask.shape[1] > 1 for r in trace.records):
            raise NotApplicable("the family generates without a cache: every step is a whole pass")
        expect(phases == ["prefill", "decode", "decode"], f"generation of three tokens was seen as {phases}")
        logits = p.said(input_ids=made.sequences)[0, p.ids.shape[1] - 1 : -1]
    own = torch.cat(made.logits).float()
    if not near(own, logits, p.loose):
        raise NotApplicable("the family itself decodes other logits than a whole pass gives; phases are told apart")
    whole = trace.records[-1]
    for i, record in enumerate(trace.records[1:-1], p.ids.shape[1]):
        at = int(record.at.position[0, -1])
        expect(at == i, f"decoded token {i} stands at position {at}")
        for site in p.sites:
            a, b = record.layers[site.layer].logits[0, -1], whole.layers[site.layer].logits[0, i]
            close(a, b, p.loose * 4, f"{site.name}: router logits decoded against a whole pass")


def restored_after_error(p: Probe) -> None:
    """After an error inside a pass the model is as before."""

    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    handle = p.sites[-1].experts.register_forward_hook(fail)
    try:
        with Trace(p.model, [Ablate(p.targets()[:1])]) as trace:
            with suppress(ZeroDivisionError):
                p.logits()
            expect(not trace.records, "a pass that failed was recorded")
    finally:
        handle.remove()
    identical(p.logits(), p.bare, "an error inside a traced pass")


def implementations_agree(p: Probe) -> None:
    """`eager`, `batched_mm` and `grouped_mm` experts see the same routing, also under zero ablation."""
    found = {}
    for name in p.implementations():
        p.captured([Ablate(p.targets()[:1])])
        found[name] = p.edited
    if len(found) == 1:
        raise NotApplicable("the family has one experts implementation, its own")
    for name, logits in found.items():
        close(logits, found["eager"], p.tolerance * 10, f"ablated logits of {name} against eager")
