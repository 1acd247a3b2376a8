"""Interventions refused before anything runs: out of range, contradictory, impossible on this router."""

from collections.abc import Sequence
from itertools import combinations

from .errors import InterventionError
from .interventions import Ablate, Intervention, ScaleWeight
from .sites import Site


def validate(interventions: Sequence[Intervention], sites: Sequence[Site]) -> None:
    """Refuse interventions that these sites cannot carry out.

    Raises:
        InterventionError: a layer without router or an expert out of range, a contradiction, more forced experts than
            slots, too few experts left, or a kind that the router's seam does not allow.
    """
    known = {s.layer: s for s in sites}
    for one in interventions:
        for layer, expert in one.targets:
            _in_range(one, layer, expert, known)
        _possible(one, known)
    for one, other in combinations(interventions, 2):
        _no_contradiction(one, other)
    for layer, site in known.items():
        _room(interventions, layer, site)


def _in_range(one: Intervention, layer: int, expert: int, known: dict[int, Site]) -> None:
    name = type(one).__name__
    if layer not in known:
        raise InterventionError(f"{name}: layer {layer} has no router; routers are in layers {sorted(known)}")
    if expert >= known[layer].classes:
        raise InterventionError(
            f"{name}: expert {expert} of layer {layer} is out of range 0..{known[layer].classes - 1}"
        )


def _possible(one: Intervention, known: dict[int, Site]) -> None:
    for layer in {layer for layer, _ in one.targets}:
        site = known[layer]
        if site.kind == "scores" and (isinstance(one, ScaleWeight) or one.seam == "output"):
            raise InterventionError(
                f"{site.name}: the score multiplies the experts' input, not their output, so {type(one).__name__} "
                f"would not scale a contribution; use Ablate(mode='zero') or Forbid"
            )
        if site.kind in ("sorted", "capacity") and one.seam == "output":
            raise InterventionError(
                f"{site.name}: its experts are not called with index and weights; Ablate(mode='mean') is not possible"
            )


def _disjoint(one: Intervention, other: Intervention) -> bool:
    """Whether the scopes cannot share a token; named masks are taken to overlap."""
    if one.phase and other.phase and one.phase != other.phase:
        return True
    if one.positions is None or other.positions is None:
        return False
    (a, b), (c, d) = one.positions, other.positions
    return (b is not None and b <= c) or (d is not None and d <= a)


def _no_contradiction(one: Intervention, other: Intervention) -> None:
    shared = set(one.targets) & set(other.targets)
    if not shared or _disjoint(one, other):
        return
    opposed = one.wants is not None and other.wants is not None and one.wants != other.wants
    modes = isinstance(one, Ablate) and isinstance(other, Ablate) and one.mode != other.mode
    if opposed or modes:
        raise InterventionError(
            f"{type(one).__name__} and {type(other).__name__} contradict each other on (layer, expert) {sorted(shared)}"
        )


def _room(interventions: Sequence[Intervention], layer: int, site: Site) -> None:
    on = {e for i in interventions if i.wants is True for e in i.experts(layer)}
    off = {e for i in interventions if i.wants is False for e in i.experts(layer)}
    if len(on) > site.top_k:
        raise InterventionError(f"{site.name}: {len(on)} experts are to be selected, a token has {site.top_k} slots")
    if site.classes - len(off) < site.top_k:
        raise InterventionError(
            f"{site.name}: {len(off)} experts are to be left out, {site.classes - len(off)} remain for "
            f"{site.top_k} slots"
        )
