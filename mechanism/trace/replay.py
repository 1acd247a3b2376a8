"""Running a model on a recorded route, and how far it would have gone another way by itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .errors import CaptureError, InterventionError
from .interventions import Intervention, pairs
from .passes import Pass
from .route import Route, Texts
from .sites import Site

if TYPE_CHECKING:
    _Route: TypeAlias = Route
else:  # whatever users hand over is checked below
    _Route = Any


@dataclass(frozen=True, eq=False)
class Replay:
    """How a route is replayed: `attach(model, replay=Replay(route))`. Every token with an entry is given to the route's
    experts in the route's slots, with the weights that the router's own rule makes of its live logits for them.

    Attributes:
        route: what to follow; weights: `rule`, or `given` for the route's own.
        layers: decoder layers to replay; without them all, of the route and of the model.
        same_text: refuse tokens other than those that the route was recorded on, where it knows them.

    Raises:
        InterventionError: no route, an unknown word, no layers, or weights that the route does not have.
    """

    route: _Route
    weights: Any = "rule"
    layers: Any = None
    same_text: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.route, Route):
            raise InterventionError(f"{type(self.route).__name__} is no route; see `Trace.route` and `Served.route`")
        if self.weights not in ("rule", "given"):
            raise InterventionError(f"Replay has no weights {self.weights!r}; choose rule or given")
        if self.weights == "given" and self.route.weight is None:
            raise InterventionError("the route has no weights that could be given; use weights='rule'")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(layer for layer, _ in pairs(self.layers, 0)))
            if not self.layers:
                raise InterventionError("Replay names no layers; leave `layers` out for all")

    def origin(self) -> dict[str, Any]:
        """What the provenance of statistics says of it."""
        layers = None if self.layers is None else list(self.layers)
        return {"replay": {"route": self.route.digest, "weights": self.weights, "layers": layers}}

    def sites(self, sites: Sequence[Site], interventions: Sequence[Intervention]) -> list[Site]:
        """The routers that are replayed.

        Raises:
            InterventionError: layers that the model or the route lacks, experts or slots that a router does not have,
                or an intervention that wants another selection.
        """
        known, own = {site.layer: site for site in sites}, set(self.route.index)
        asked = own | set(known) if self.layers is None else set(self.layers)
        if lacking := sorted(asked - (own & set(known))):
            raise InterventionError(
                f"layers {lacking} cannot be replayed: routers are in layers {sorted(known)}, the route has "
                f"{sorted(own)}; name those to replay, Replay(route, layers=...)"
            )
        for layer in sorted(asked):
            self._fits(known[layer])
            if against := [type(i).__name__ for i in interventions if i.wants is not None and i.experts(layer)]:
                raise InterventionError(f"layer {layer} is replayed, {against[0]} cannot move its selection as well")
        return [known[layer] for layer in sorted(asked)]

    def _fits(self, site: Site) -> None:
        index, classes = self.route.index[site.layer], (self.route.classes or {}).get(site.layer)
        if (*index.shape[2:-1], 1)[0] != site.heads or index.shape[-1] != site.top_k:
            rows = f"{site.heads} rows of " if site.heads > 1 else ""
            raise InterventionError(
                f"{site.name}: the route has {index.shape[2:]} slots a token, the router {rows}{site.top_k}"
            )
        if int(index.max()) >= site.classes or classes not in (None, site.classes, site.num_experts):
            raise InterventionError(
                f"{site.name}: the route chooses from {max(classes or 0, int(index.max()) + 1)} experts, the router "
                f"from {site.classes}"
            )


@dataclass(eq=False)
class Given:
    """What a route says to one router in one pass.

    Attributes:
        index: `(row, slot)`; has: `(row,)` whether there is an entry; weight: `(row, slot)` of the route, if known.
        use: whether experts receive that weight; rule: `(row, slot)` what the router made for these experts.
    """

    index: Tensor
    has: Tensor
    weight: Tensor | None
    use: bool
    rule: Tensor | None = None

    def weights(self, weight: Tensor) -> Tensor:
        """What the experts are to receive where the router made `weight`."""
        self.rule = rule = weight.detach().reshape(self.index.shape)
        if self.weight is None or not self.use:
            return weight
        return torch.where(self.has.unsqueeze(-1), self.weight.to(rule.dtype), rule).view(weight.shape)


@dataclass
class Count:
    """Sums over the passes in one layer, left on its device until they are asked for."""

    sums: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(("has", "own", "other", "slots", "gap"), 0))

    def add(self, given: Given, own: Tensor, real: Tensor) -> None:
        """Count a pass; `own` is what the router would have selected by itself, `(row, slot)`."""
        other = (given.index.unsqueeze(-1) != own.unsqueeze(1)).all(-1) & given.has.unsqueeze(-1)
        found = {"has": given.has, "own": real & ~given.has, "other": other.any(-1), "slots": other}
        if given.weight is not None and given.rule is not None:
            gap = (given.weight.double() - given.rule.double()).abs().sum(-1) / 2
            found["gap"] = torch.where(given.has, gap, 0)
        for name, values in found.items():
            self.sums[name] = self.sums[name] + values.sum()

    def row(self, slots: int, weighed: bool) -> dict[str, Any]:
        """A row of `Trace.replayed`."""
        has, own, other, moved, gap = (float(total) for total in self.sums.values())
        share = 1 / has if has else np.nan
        return {
            "tokens": int(has), "unrouted": int(own), "other_tokens": other * share,
            "other_slots": moved * share / slots, "weight_gap": gap * share if weighed else np.nan,
        }  # fmt: skip


class Following:
    """A replay on its way through the passes of a trace.

    Args:
        sites: the routers that are replayed.
    """

    def __init__(self, replay: Replay, sites: Sequence[Site]) -> None:
        self.replay, self.sites = replay, {site.layer: site for site in sites}
        self.counts = {layer: Count() for layer in self.sites}
        self.texts = self._next = Texts()
        self._place: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def begin(self, at: Pass) -> None:
        """A pass begins: find its tokens in the route.

        Raises:
            InterventionError: more sequences than the route has, or another text.
        """
        route = self.replay.route
        sequence, position, token, self._next = self.texts.place(at)
        if self._next.begun > route.shape[0]:
            raise InterventionError(
                f"this pass begins sequence {self._next.begun}, the route has {route.shape[0]}: passes go through a "
                "route's sequences in order; attach again to begin anew"
            )
        within = (sequence >= 0) & (position < route.shape[1])
        row, column = np.where(within, sequence, 0), np.where(within, position, 0)
        if self.replay.same_text and route.ids is not None and at.ids is not None:
            recorded = np.where(within, route.ids[row, column], -1)
            if (other := (recorded >= 0) & (recorded != token)).any():
                i = tuple(np.argwhere(other)[0])
                raise InterventionError(
                    f"token {position[i]} of sequence {sequence[i]} is {token[i]}, the route was recorded on "
                    f"{recorded[i]}: move it (Route.moved), or say Replay(route, same_text=False)"
                )
        self._place = within, row, column

    def given(self, site: Site) -> Given | None:
        """What the route says to a router in this pass; None if it is not replayed."""
        if site.layer not in self.sites or self._place is None:
            return None
        within, row, column = self._place
        route, device = self.replay.route, site.weight.device

        def rows(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values[row, column]).reshape(-1, site.top_k).to(device)

        has = torch.from_numpy(within & route.entries(site.layer)[row, column]).reshape(-1).to(device)
        weight = None if route.weight is None else rows(route.weight[site.layer])
        return Given(rows(route.index[site.layer]).long(), site.rows(has), weight, self.replay.weights == "given")

    def end(self, at: Pass, calls: Iterable[Any]) -> None:
        """The pass is over: count what each `Call` of it would have selected by itself."""
        self.texts, self._place = self._next, None
        for call in calls:
            if call.site.layer in self.sites:
                real = call.site.rows(at.mask.reshape(-1).to(call.site.weight.device))
                self.counts[call.site.layer].add(call.edit.given, call.clean[0], real)

    def table(self) -> pd.DataFrame:
        """See `Trace.replayed`."""
        if not self.texts.begun:
            raise CaptureError("no pass has run since attaching, so nothing was replayed")
        weighed = self.replay.route.weight is not None
        rows = [{"layer": k, **own.row(self.sites[k].top_k, weighed)} for k, own in self.counts.items()]
        return pd.DataFrame(rows).set_index("layer")
