"""One site during one pass: the hooks that watch its router and experts and carry out the interventions."""

import inspect
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .edit import SiteEdit, run_edited
from .errors import CaptureError
from .host import Readout
from .interventions import Intervention
from .outputs import read_output, selected_classes, write_output
from .passes import Pass
from .seam import RouterTap, Routing, tapped
from .sites import Site


@dataclass
class Change:
    """Sums over the real tokens of edited layers; a token counts once for each of its heads."""

    tokens: int = 0
    changed: int = 0
    moved: float = 0.0

    def add(self, tokens: float, changed: float, moved: float) -> None:
        """Count a pass."""
        self.tokens, self.changed, self.moved = (
            self.tokens + int(tokens),
            self.changed + int(changed),
            self.moved + moved,
        )


def rows_of(scope: Tensor | bool, site: Site) -> Tensor | bool:
    """A scope over tokens as one over the router's rows, on its device: layers may lie on others than the input."""
    return site.rows(scope.to(site.weight.device)) if isinstance(scope, Tensor) else scope


class Call:
    """One site during one pass.

    Args:
        host: the `Trace` it belongs to.
    """

    def __init__(self, host: Any, site: Site, own: list[Intervention]) -> None:
        self.host, self.site, self.own = host, site, own
        self.edit: SiteEdit | None = None
        self.tap: RouterTap | None = None
        self.entered = False
        self.routing: Routing | None = None
        self.clean: tuple[Tensor, Tensor] | None = None
        self.received: tuple[Tensor, Tensor] | None = None

    def start(self, at: Pass) -> None:
        """A pass begins."""
        self.stop()
        self.edit = None
        given = self.host.given(self.site)
        if self.own or given is not None:
            scopes = [rows_of(at.scope(i, self.host.masks), self.site) for i in self.own]
            means = self.host.means.get(self.site.layer)
            self.edit = SiteEdit(self.site, self.own, scopes, means, self.host.seed, given=given)

    def stop(self) -> None:
        """Forget the pass; leave the tap if an error left it active."""
        if self.entered and self.tap is not None:
            self.tap.__exit__(None, None, None)
        self.entered, self.tap, self.routing, self.clean = False, None, None, None

    def before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        """The router is about to run."""
        self.host.current(self.site)
        self.tap = RouterTap(self.site)
        self.tap.__enter__()
        self.entered = True

    def after(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        """The router has run, unedited: run it again if an intervention acts on it."""
        if self.entered and self.tap is not None:
            self.tap.__exit__(None, None, None)
            self.entered = False
        if output is None or self.site.kind == "block":
            return output
        return self._routed(output, lambda tap: module.forward(*args, **kwargs))

    def wrap_selection(self, stack: ExitStack) -> None:
        """For a router that returns logits only: run the block's selection under the tap."""
        block: Any = self.site.block
        select = block.route_tokens_to_experts

        names = list(inspect.signature(select).parameters)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            given = {**dict(zip(names, args, strict=False)), **kwargs}

            def call(tap: RouterTap) -> Any:
                return select(**{**given, "router_logits": tap.made(given["router_logits"])})

            output, self.tap = tapped(call, RouterTap(self.site))
            return self._routed(output, call)

        block.__dict__["route_tokens_to_experts"] = wrapped
        stack.callback(block.__dict__.pop, "route_tokens_to_experts")

    def _routed(self, output: Any, call: Any) -> Any:
        site, tap = self.site, self.tap
        if tap is None or tap.logits is None:
            raise CaptureError(f"{site.name} made no logits by the linear map of its gate; it cannot be observed")
        if tap.bypassed and not getattr(site.gate, "merged", False):
            raise CaptureError(
                f"{site.name} reads its matrix past the {type(site.gate).__name__} around it, which acts on nothing; "
                "merge the adapter (peft: `merge_and_unload`)"
            )
        if self.routing is not None:
            raise CaptureError(f"{site.name} ran twice in one pass, as in a model whose layers share a router")
        at = self.host.current(site)
        if tap.logits.shape[0] != at.tokens * site.heads:
            each = f" of {site.heads} rows each" if site.heads > 1 else ""
            raise CaptureError(f"{site.name} saw {tap.logits.shape[0]} tokens, the model was given {at.tokens}{each}")
        if self.edit is not None:
            self.clean = selected_classes(site, output, tap), read_output(site, output, tap)[1]
            if self.edit.routes:
                output, self.tap = run_edited(site, self.edit, call)
        return output if site.kind in ("standard", "block") else self._without_experts(output)

    def _without_experts(self, output: Any) -> Any:
        """Sites whose experts module receives no weights: edit and record the router's output."""
        assert self.tap is not None
        index, weight = read_output(self.site, output, self.tap)
        edited = weight if self.edit is None else self.edit.weights(index, self.edit.received(weight))
        self._record(index, edited)
        return output if edited is weight else write_output(self.site, output, index, edited)

    def experts(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        """The experts are about to run: read, and edit, the weights they receive."""
        if self.tap is None:
            raise CaptureError(f"{self.site.name}: its experts ran before the router")
        values = [*args, *kwargs.values()]
        slots = [t for t in values[1:] if isinstance(t, Tensor) and t.shape[-1] == self.site.top_k]
        at = next(i for i, t in enumerate(values) if t is next(s for s in slots if s.is_floating_point()))
        index = next(s for s in slots if not s.is_floating_point())
        weight = values[at] if self.edit is None else self.edit.received(values[at])
        edited = weight if self.edit is None else self.edit.weights(index, weight)
        self.received = (index, weight)
        self._record(index, edited)
        if edited is values[at]:
            return None
        values[at] = edited
        return tuple(values[: len(args)]), dict(zip(kwargs, values[len(args) :], strict=True))

    def output(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """The experts have run: add what mean ablation puts in place of a contribution."""
        if self.edit is None or self.received is None or not self.edit.of("output"):
            return None
        added = self.edit.added(*self.received, like=output)
        return None if added is None else output + added.view(output.shape)

    def _record(self, index: Tensor, weight: Tensor) -> None:
        tap = self.tap
        assert tap is not None
        assert tap.logits is not None
        chosen = selected_classes(self.site, (index, weight), tap)
        self.routing = Routing(tap.logits, chosen.detach(), weight.detach())
        self.host.seen(self.site, self.routing)

    @property
    def logits(self) -> Tensor:
        """`(token, class)` of the pass that ended."""
        assert self.routing is not None
        return self.routing.logits

    def ask_wishes(self, readout: Readout) -> None:
        """Ask whether the wishes about selection were met, and refuse the pass if not."""
        if (edit := self.edit) is not None:
            readout.ask(edit.flags, lambda found: self.host.note(self.site, edit.settle(found)))

    def ask_change(self, readout: Readout, at: Pass, change: Change) -> None:
        """Ask what the interventions changed in the pass, and add it."""
        readout.ask([self._changed(at)], lambda found: change.add(*found[0].tolist()))

    def kept(self, at: Pass) -> list[Tensor]:
        """Logits, index and weight of the routing, `(batch, pos, ...)`, with heads `(batch, pos, head, ...)`."""
        assert self.routing is not None
        r = self.routing
        shape = at.mask.shape if self.site.heads == 1 else (*at.mask.shape, self.site.heads)
        return [t.reshape(*shape, -1) for t in (r.logits, r.index, r.weight.float())]

    def _changed(self, at: Pass) -> Tensor:
        """Tokens, how many of them have another set of experts, and how far their weights moved, float64."""
        assert self.routing is not None
        assert self.clean is not None
        index, weight = self.clean
        real = self.site.rows(at.mask.reshape(-1).to(index.device))
        other = (index.sort(-1).values != self.routing.index.to(index.dtype).sort(-1).values).any(-1)
        before, after = self._dense(index, weight), self._dense(self.routing.index, self.routing.weight)
        moved = ((after - before).abs().sum(-1) * real).sum() / 2
        return torch.stack([real.sum().double(), (other & real).sum().double(), moved])

    def _dense(self, index: Tensor, weight: Tensor) -> Tensor:
        table = torch.zeros(index.shape[0], self.site.classes, dtype=torch.float64, device=index.device)
        return table.scatter_add_(1, index.clamp(0, self.site.classes - 1).long(), weight.detach().double())
