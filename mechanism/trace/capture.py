"""A trace: watches a model's routing, and edits it, for as long as a `with` block lasts."""

import inspect
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import pandas as pd
import xarray as xr
from torch import Tensor, nn
from transformers import PreTrainedModel

from .attachable import contents, provenance, refuse_unobservable, warn_unsupported
from .call import Call, Change
from .errors import AttachError, CaptureError, InterventionError
from .host import Readout
from .inside import Inside
from .interventions import Intervention
from .passes import Pass, TokenMask, read_pass, refuse_empty
from .records import Record, to_dataset
from .replay import Following, Given, Replay
from .route import Route
from .seam import Routing, refuse_nan
from .sites import Site, find_sites
from .stats import RoutingStats
from .validate import validate

_ATTACHED: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


def called(model: nn.Module, sites: Sequence[Site]) -> nn.Module:
    """The module whose calls are passes: the model of transformers that holds the routers, which a wrapper around it
    (as of adapters) calls, in generation past its own forward; else the model itself."""
    holds = (m for path, m in model.named_modules() if not path or sites[0].path.startswith(path + "."))
    return next((m for m in holds if isinstance(m, PreTrainedModel)), model)


class Trace:
    """What `attach` gives, without its proof: observes every pass of the model inside the `with` block.

    Attributes:
        sites: the model's routers; records: full tensors by pass, if they are kept; notes: what was translated.
    """

    def __init__(
        self,
        model: nn.Module,
        interventions: Intervention | Sequence[Intervention] = (),
        *,
        keep: bool = True,
        stats: RoutingStats | None = None,
        inside: Inside | None = None,
        masks: Mapping[str, TokenMask] | None = None,
        means: Mapping[int, Tensor] | None = None,
        seed: int = 0,
        first: int = 0,
        replay: Replay | Route | None = None,
    ) -> None:
        given = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
        if strange := [one for one in given if not isinstance(one, Intervention)]:
            raise InterventionError(f"{strange[0]!r} is no intervention; see `from_json` for those in JSON")
        self.model, self.interventions, self.keep, self.stats, self.inside = model, given, keep, stats, inside
        self.masks, self.means, self.seed = dict(masks or {}), dict(means or {}), seed
        self.sites = [s for s in find_sites(model) if s.layer >= first]
        refuse_unobservable(model, self.sites)
        warn_unsupported()
        validate(self.interventions, self.sites)
        self._check_means()
        self.replay = replay if isinstance(replay, Replay | None) else Replay(replay)
        self._following: Following | None = None
        if self.replay is not None:
            self._following = Following(self.replay, self.replay.sites(self.sites, self.interventions))
        self.records: list[Record] = []
        self.notes: list[str] = []
        self.groups: tuple[str, ...] | None = None
        self._checkpointable: list[Any] = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
        self._called = called(model, self.sites)
        self._arguments = tuple(inspect.signature(self._called.forward).parameters)
        self._changes = {s.layer: Change() for s in self.sites if self._of(s) or self._follows(s)}
        self._stack = ExitStack()
        self._pass: Pass | None = None
        self._open: dict[int, Call] = {}

    def _of(self, site: Site) -> list[Intervention]:
        return [i for i in self.interventions if i.experts(site.layer)]

    def _follows(self, site: Site) -> bool:
        return self._following is not None and site.layer in self._following.sites

    def given(self, site: Site) -> Given | None:
        """What a replayed route says to a router in the current pass."""
        return None if self._following is None else self._following.given(site)

    def _check_means(self) -> None:
        targets = [target for i in self.interventions if i.seam == "output" for target in i.targets]
        missing = sorted({layer for layer, _ in targets} - set(self.means))
        if missing:
            raise InterventionError(
                f"Ablate(mode='mean') in layers {missing} needs mean outputs: "
                "attach(..., means=expert_means(model, batches))"
            )
        unknown = [(layer, expert) for layer, expert in targets if bool(self.means[layer][expert].isnan().any())]
        if unknown:
            raise InterventionError(
                f"Ablate(mode='mean'): (layer, expert) {unknown} have no mean output, no token of the batches selected "
                "them; compute the means on more text"
            )

    def __enter__(self) -> "Trace":
        if self._called in _ATTACHED:
            raise AttachError(f"{type(self.model).__name__} is attached already; put all interventions into one list")
        _ATTACHED.add(self._called)
        self._stack.callback(_ATTACHED.discard, self._called)
        try:
            self._hook()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._abandon()
        self._stack.close()

    def _hook(self) -> None:
        if self.stats is not None or self.inside is not None:
            origin = provenance(self.model, self.interventions, self.seed) | contents(self.masks, self.means)
            origin |= {} if self.replay is None else self.replay.origin()
        if self.stats is not None:
            self.stats.bind([s.layer for s in self.sites], max(s.classes for s in self.sites), origin)
        if self.inside is not None:  # before the hooks that change the experts' output
            for handle in self.inside.hook(self.model, self.sites, origin, self._routing):
                self._keep(handle)
        self._keep(self._called.register_forward_pre_hook(self._begin, with_kwargs=True))
        self._keep(self._called.register_forward_hook(self._end, always_call=True))
        for site in self.sites:
            call = Call(self, site, self._of(site))
            self._open[site.layer] = call
            self._keep(site.router.register_forward_pre_hook(call.before, with_kwargs=True))
            # First of all hooks, so that those of transformers (`output_router_logits`) see what was edited.
            self._keep(site.router.register_forward_hook(call.after, prepend=True, with_kwargs=True, always_call=True))
            if site.kind == "block":
                call.wrap_selection(self._stack)
            if site.kind in ("standard", "block"):
                self._keep(site.experts.register_forward_pre_hook(call.experts, with_kwargs=True))
                self._keep(site.experts.register_forward_hook(call.output))

    def _keep(self, handle: Any) -> None:
        self._stack.callback(handle.remove)

    def label(self, groups: str | Sequence[str]) -> "Trace":
        """Count the following passes under these groups: one name, or one per batch row.

        Raises:
            CaptureError: there are no statistics, or they have no such group.
        """
        if self.stats is None:
            raise CaptureError("labels are counted by statistics; attach with stats=RoutingStats(groups=...)")
        names = (groups,) if isinstance(groups, str) else tuple(groups)
        self.stats.require(names)
        self.groups = names
        return self

    def _rows(self, at: Pass) -> tuple[str, ...]:
        assert self.stats is not None
        names = self.groups or (self.stats.groups if len(self.stats.groups) == 1 else ())
        if len(names) not in (1, at.mask.shape[0]):
            raise CaptureError(
                f"the batch has {at.mask.shape[0]} rows and {len(names)} labels; call trace.label(...) before the model"
            )
        return names * at.mask.shape[0] if len(names) == 1 else names

    def _begin(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self._abandon()
        if model.training and any(m.gradient_checkpointing for m in self._checkpointable):
            raise CaptureError(
                "gradient checkpointing runs every router twice in training; switch it off "
                "(model.gradient_checkpointing_disable()) or use model.eval()"
            )
        at = read_pass({**dict(zip(self._arguments, args, strict=False)), **kwargs}, wait=False)
        if self.stats is not None:
            self._rows(at)
        if self._following is not None:
            self._following.begin(at)
        if self.inside is not None:
            self.inside.begin(at)
        self._pass = at
        for call in self._open.values():
            call.start(at)

    def _end(self, model: nn.Module, args: tuple, output: Any) -> None:
        at, self._pass = self._pass, None
        if at is None or output is None:
            return self._abandon()
        silent = [c.site.name for c in self._open.values() if c.routing is None]
        if silent:
            self._abandon()
            whole = len(silent) == len(self._open)
            told = "; a forward that was compiled before attaching runs without them: attach first" if whole else ""
            raise CaptureError(f"these routers did not run in this pass: {', '.join(silent)}{told}")
        try:
            self._readout(at).read()
            if self.inside is not None:
                self.inside.commit()
            if self._following is not None:
                self._following.end(at, self._open.values())
        finally:
            self._abandon()
        return None

    def _readout(self, at: Pass) -> Readout:
        """All that is to be known of a pass that ended: the host waits for the device once, not for each layer. What is
        refused comes first, what is counted last."""
        calls, found = list(self._open.values()), Readout()
        found.ask([at.mask.any()], refuse_empty)
        found.ask([c.logits.amax() for c in calls], partial(refuse_nan, [c.site for c in calls]))
        for call in calls:
            call.ask_wishes(found)
        if self.stats is not None:
            found.ask(self.stats.pending(), partial(self.stats.commit, self._rows(at)))
        if self.keep:
            found.ask([t for c in calls for t in c.kept(at)], partial(self._append, at))
        for layer, change in self._changes.items():
            self._open[layer].ask_change(found, at, change)
        return found

    def _append(self, at: Pass, parts: list[Tensor]) -> None:
        """Keep the record of a pass, from three parts a layer."""
        layers = {layer: Routing(*parts[3 * i : 3 * i + 3]) for i, layer in enumerate(self._open)}
        self.records.append(Record(at, layers))

    def _abandon(self) -> None:
        """Drop what an unfinished pass left."""
        self._pass = None
        for call in self._open.values():
            call.stop()
        if self.stats is not None:
            self.stats.discard()
        if self.inside is not None:
            self.inside.discard()

    def seen(self, site: Site, routing: Routing) -> None:
        """A router has run in the current pass."""
        if self.stats is not None:
            assert self._pass is not None
            self.stats.observe(site.layer, routing, self._pass, self._rows(self._pass))

    def current(self, site: Site) -> Pass:
        """The pass that a router runs in.

        Raises:
            CaptureError: none is open, or the router sees other tokens than the model was given.
        """
        if self._pass is None:
            raise CaptureError(
                f"{site.name} ran outside a call of the attached {type(self.model).__name__}; "
                "attach to the module you call"
            )
        return self._pass

    def _routing(self, site: Site) -> Routing:
        """What a router did in the current pass, once its experts run."""
        self.current(site)
        found = self._open[site.layer].routing
        assert found is not None
        return found

    def note(self, site: Site, translated: list[str]) -> None:
        """Remember what was translated into a selection, once a layer."""
        for name in translated:
            text = f"{site.name}: {name} translated into a selection; its rule does not follow the logits alone"
            if text not in self.notes:
                self.notes.append(text)

    def changes(self) -> pd.DataFrame:
        """What the interventions changed, by layer: real `tokens`, `changed` share of them whose set of experts is
        another, `weight_moved` mean over tokens of half the sum over experts of |w after - w before|. A token counts
        once for each head.

        Raises:
            CaptureError: no pass has run, so there is nothing to report.
        """
        if self._changes and not any(c.tokens for c in self._changes.values()):
            raise CaptureError("no pass has run since attaching: there are no changes to report")
        rows = [
            {"layer": k, "tokens": c.tokens, "changed": c.changed / c.tokens, "weight_moved": c.moved / c.tokens}
            for k, c in self._changes.items()
        ]
        return pd.DataFrame(rows, columns=["layer", "tokens", "changed", "weight_moved"]).set_index("layer")

    def route(self) -> Route:
        """The route of the kept records, to be replayed: `attach(model, replay=trace.route())`.

        Raises:
            CaptureError: nothing was recorded, or a token twice.
        """
        return Route.of(self.records)

    def replayed(self) -> pd.DataFrame:
        """How far the model, at the states that it was in, agreed with the route that it was made to follow, by layer:
        real `tokens` with an entry, `unrouted` real tokens without one, share of `other_tokens` whose router would have
        selected another set of experts (1 minus it is exact-set agreement), share of `other_slots` with an expert that
        it would not have selected, and `weight_gap`, the mean over tokens of half the sum of |w of the route - w of the
        rule|, NaN where the route has no weights. A token counts once for each head.

        Raises:
            CaptureError: no route is replayed, or no pass has run.
        """
        if self._following is None:
            raise CaptureError("no route is replayed; attach with replay=...")
        return self._following.table()

    def dataset(self) -> xr.Dataset:
        """Kept records as one dataset over `(batch, pos, layer, expert | slot)`: `router_logits`, `expert_index`,
        `expert_weight`, `mask`, `phase`. Padding is NaN or -1; passes follow one another along `pos`. Where a router
        has several rows a token (multi-head layers), `head` follows `layer`.

        Raises:
            CaptureError: nothing was recorded, or passes have different batch sizes.
        """
        return to_dataset(self.records)
