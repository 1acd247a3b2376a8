"""Interventions bound to one site and the tokens of one pass, and the router run again under them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .errors import InterventionError
from .interventions import Ablate, Intervention, ScaleWeight
from .outputs import selected_classes
from .replay import Given
from .seam import RouterTap, Selection, tapped
from .sites import Site


@dataclass
class SiteEdit:
    """The interventions on one site, bound to the tokens of a pass.

    Attributes:
        interventions: those with targets in this layer, in order.
        scopes: for each, True (all tokens), or a `(token,)` mask.
        means: `(class, d)` mean outputs for `Ablate(mode="mean")`.
        seed: breaks ties of `Activate` and `Deactivate`.
        given: what a replayed route says.
    """

    site: Site
    interventions: Sequence[Intervention]
    scopes: Sequence[Tensor | bool]
    means: Tensor | None = None
    seed: int = 0
    translated: list[str] = field(default_factory=list)
    given: Given | None = None

    def of(self, seam: str) -> list[tuple[Intervention, Tensor | bool]]:
        """Interventions of a seam with their scopes; rerouting last, so that no rule sees its masked logits."""
        found = [(i, s) for i, s in zip(self.interventions, self.scopes, strict=True) if i.seam == seam]
        return sorted(found, key=lambda pair: isinstance(pair[0], Ablate))

    @property
    def routes(self) -> bool:
        """Whether the router itself has to run again."""
        return bool(self.of("logits") or self.of("selection") or self.given)

    def logits(self, logits: Tensor) -> Tensor:
        """All steering rules, each on its tokens."""
        for one, scope in self.of("logits"):
            edited = one.logits(logits, one.experts(self.site.layer), self.seed)
            logits = edited if scope is True else torch.where(_column(scope), edited, logits)
        return logits

    def selection(self, seams: tuple[str, ...], device: torch.device) -> Selection:
        """Masks of what the interventions of some seams want selected and left out."""
        masks: dict[bool, Tensor | None] = {True: None, False: None}
        for seam in seams:
            for one, scope in self.of(seam):
                if one.wants is not None:
                    hit = self._classes(one, device) if scope is True else self._classes(one, device) & _column(scope)
                    before = masks[one.wants]
                    masks[one.wants] = hit if before is None else before | hit
        given = None if self.given is None else (self.given.index, self.given.has.unsqueeze(-1))
        return Selection(force=masks[True], forbid=masks[False], given=given)

    def _classes(self, one: Intervention, device: torch.device) -> Tensor:
        mask = torch.zeros(1, self.site.columns, dtype=torch.bool, device=device)
        mask[:, one.experts(self.site.layer)] = True
        return mask

    def weights(self, index: Tensor, weight: Tensor) -> Tensor:
        """Weights after scaling and ablation; the same tensor if nothing acts on it."""
        for one, scope in [*self.of("weight"), *self.of("output")]:
            hit = self.hits(one, scope, index)
            if isinstance(one, ScaleWeight):
                scaled = torch.where(hit, weight * one.factor, weight)
                weight = _same_sum(scaled, weight) if one.renormalise else scaled
            else:
                weight = weight.masked_fill(hit, 0)
        return weight

    def received(self, weight: Tensor) -> Tensor:
        """Weights that are scaled and ablated: the router's own, or those of a replayed route."""
        return weight if self.given is None else self.given.weights(weight)

    def hits(self, one: Intervention, scope: Tensor | bool, index: Tensor) -> Tensor:
        """`(token, slot)` slots that an intervention acts on."""
        hit = torch.isin(index, torch.tensor(one.experts(self.site.layer), device=index.device))
        return hit if scope is True else hit & _column(scope)

    def added(self, index: Tensor, weight: Tensor, like: Tensor) -> Tensor | None:
        """What mean ablation adds to the experts' output: weight times mean output over the slots it acts on."""
        total: Tensor | None = None
        for one, scope in self.of("output"):
            if self.means is None:
                raise InterventionError(f"{self.site.name}: Ablate(mode='mean') needs mean outputs; hand over `means`")
            hit = self.hits(one, scope, index)
            gates = torch.zeros(index.shape[0], self.site.classes, device=index.device)
            gates.scatter_add_(1, index.clamp(0, self.site.classes - 1), weight.float() * hit)
            part = (gates @ self.means.to(gates).nan_to_num()).to(like.dtype)
            total = part if total is None else total + part
        return total

    def violations(self, index: Tensor) -> list[str]:
        """Names of interventions whose wish about selection is not met by `index` `(token, slot)`."""
        missed = []
        for one, scope in zip(self.interventions, self.scopes, strict=True):
            wished = one.experts(self.site.layer)
            if one.wants is None or not wished:
                continue
            chosen = (index.unsqueeze(-1) == torch.tensor(wished, device=index.device)).any(1)
            wrong = (chosen != one.wants).any(-1)
            if bool((wrong if scope is True else wrong & scope).any()):
                missed.append(type(one).__name__)
        return missed


def _column(scope: Tensor | bool) -> Tensor:
    assert isinstance(scope, Tensor)
    return scope.unsqueeze(-1)


def _same_sum(scaled: Tensor, weight: Tensor) -> Tensor:
    """`scaled` with every token's former sum; tokens whose sum did not change, or became 0, stay as they are."""
    before, after = weight.sum(-1, keepdim=True), scaled.sum(-1, keepdim=True)
    keep = (before == after) | (after == 0)
    return torch.where(keep, scaled, scaled * (before / torch.where(after == 0, 1, after)))


def run_edited(site: Site, edit: SiteEdit, call: Callable[[RouterTap], Any]) -> tuple[Any, RouterTap]:
    """Run the router again with its edits; what the family's rule does not turn into the wished selection is
    translated into one, and noted.

    Args:
        call: runs the router's own code under the tap it is given.

    Raises:
        InterventionError: the wish cannot be met.
    """
    rule = edit.logits if edit.of("logits") else None
    device = site.weight.device
    output, tap = tapped(site, call, rule, edit.selection(("selection",), device))
    if edit.given is not None and not tap.followed:
        raise InterventionError(f"{site.name} selects by a rule that a route cannot replace; leave its layer out")
    missed = edit.violations(selected_classes(site, output, tap))
    if missed and tap.selected is not None:
        output, tap = tapped(site, call, rule, edit.selection(("selection", "logits"), device))
        edit.translated.extend(missed)
        missed = edit.violations(selected_classes(site, output, tap))
    if missed:
        raise InterventionError(
            f"{site.name} selects by a rule that {', '.join(missed)} cannot move; use Ablate(mode='zero') or "
            "ScaleWeight"
        )
    return output, tap
