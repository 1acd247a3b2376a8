"""The tools that people watch routing with, behind two questions: what do you give of a pass, and can you edit it?"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..trace import Forbid, RoutingStats, Site, attach, find_sites, pairs

Batch = dict[str, Any]
Run = Callable[[Batch], "list[Seen]"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a tool gives of one layer of a pass; None where it does not.

    Attributes:
        logits: `(row, expert)`; index, weight: `(row, slot)`.
        counted: `(row,)` the tokens that it counts as such; all rows without it.
    """

    logits: Tensor | None = None
    index: Tensor | None = None
    weight: Tensor | None = None
    counted: Tensor | None = None


@dataclass(frozen=True)
class Tool:
    """A tool: `watch(model)` is a context that gives what runs a pass under watch; `forbid(model, batch, site, expert)`
    runs one under the edit that the tool offers to keep an expert from being selected, None where it offers none."""

    watch: Callable[[PreTrainedModel], Any]
    forbid: Callable[[PreTrainedModel, Batch, Site, int], None] | None = None
    package: str = ""

    @property
    def version(self) -> str | None:
        """Of the package, None if it is not installed; empty for what comes with transformers, torch and this one."""
        try:
            return version(self.package) if self.package else ""
        except PackageNotFoundError:
            return None


@contextmanager
def _bare(model: PreTrainedModel) -> Iterator[Run]:
    yield partial(_nothing, model)


def _nothing(model: PreTrainedModel, batch: Batch) -> list[Seen]:
    model(**batch)
    return []


@contextmanager
def _option(model: PreTrainedModel) -> Iterator[Run]:
    def run(batch: Batch) -> list[Seen]:
        given = getattr(model(**batch, output_router_logits=True), "router_logits", None) or ()
        return [Seen(logits=one.detach()) for one in given]

    yield run


@contextmanager
def _hooks(model: PreTrainedModel) -> Iterator[Run]:
    seen: list[Seen] = []

    def keep(module: torch.nn.Module, args: tuple, output: Any) -> None:
        seen.append(Seen(logits=(output[0] if isinstance(output, tuple) else output).detach()))

    def run(batch: Batch) -> list[Seen]:
        seen.clear()
        model(**batch)
        return list(seen)

    with ExitStack() as stack:
        for site in find_sites(model):
            stack.callback(site.router.register_forward_hook(keep).remove)
        yield run


def _hooks_forbid(model: PreTrainedModel, batch: Batch, site: Site, expert: int) -> None:
    def edit(module: torch.nn.Module, args: tuple, output: Any) -> Any:
        logits = (output[0] if isinstance(output, tuple) else output).clone()
        logits[..., expert] = -torch.inf
        return (logits, *output[1:]) if isinstance(output, tuple) else logits

    handle = site.router.register_forward_hook(edit)
    try:
        model(**batch)
    finally:
        handle.remove()


@contextmanager
def _nnsight(model: PreTrainedModel) -> Iterator[Run]:
    wrapped = import_module("nnsight").NNsight(model)
    sites = find_sites(model)

    def run(batch: Batch) -> list[Seen]:
        with wrapped.trace(**batch):
            found = list().save()  # type: ignore[attr-defined]  # noqa: C408 (nnsight adds it)
            for site in sites:
                found.append(wrapped.get(site.path).output)
        return [_by_kind(one) for one in found]

    yield run


def _by_kind(output: Any) -> Seen:
    """A router's `(logits, weight, index)` as families of transformers 5 return it; logits if it returns one tensor."""
    if isinstance(output, Tensor):
        return Seen(logits=output.detach())
    whole = [t for t in output if isinstance(t, Tensor) and not t.is_floating_point()]
    real = [t.detach() for t in output if isinstance(t, Tensor) and t.is_floating_point()]
    if len(whole) != 1 or len(real) < 2:
        return Seen(logits=real[0])
    return Seen(real[0], whole[0], real[1])


def _nnsight_forbid(model: PreTrainedModel, batch: Batch, site: Site, expert: int) -> None:
    wrapped = import_module("nnsight").NNsight(model)
    with wrapped.trace(**batch):
        output = wrapped.get(site.path).output
        logits = output[0] if isinstance(output, tuple) else output
        logits[..., expert] = -torch.inf


def _bridge(model: PreTrainedModel) -> Any:
    """TransformerLens replaces modules of the model in place."""
    builder = import_module("transformer_lens.model_bridge.sources._bridge_builder")
    return builder.build_bridge_from_module(model, architecture=type(model).__name__, hf_config=model.config)


def _point(site: Site) -> str:
    return f"blocks.{site.layer}.mlp.{site.path.rpartition('.')[2]}"


@contextmanager
def _lens(model: PreTrainedModel) -> Iterator[Run]:
    sites, bridge = find_sites(model), _bridge(model)
    names = {f"{_point(site)}.hook_{part}" for site in sites for part in ("out", "expert_indices", "expert_weights")}

    def run(batch: Batch) -> list[Seen]:
        cache = bridge.run_with_cache(
            batch["input_ids"], attention_mask=batch["attention_mask"], names_filter=lambda name: name in names
        )[1]
        found = []
        for site in sites:
            logits, index, dense = (
                cache[name] if (name := f"{_point(site)}.hook_{part}") in cache else None
                for part in ("out", "expert_indices", "expert_weights")
            )
            weight = None if index is None or dense is None else dense.gather(-1, index)
            found.append(Seen(logits, index, weight))
        return found

    yield run


def _lens_forbid(model: PreTrainedModel, batch: Batch, site: Site, expert: int) -> None:
    def edit(value: Tensor, hook: Any) -> Tensor:
        edited = value.clone()
        edited[..., expert] = -torch.inf
        return edited

    name = f"{_point(site)}.hook_out"
    bridge = _bridge(model)
    bridge.run_with_hooks(batch["input_ids"], attention_mask=batch["attention_mask"], fwd_hooks=[(name, edit)])


@contextmanager
def _streaming(model: PreTrainedModel) -> Iterator[Run]:
    with attach(model, keep=False, stats=RoutingStats()):
        yield partial(_nothing, model)


@contextmanager
def _full(model: PreTrainedModel) -> Iterator[Run]:
    with attach(model) as trace:

        def run(batch: Batch) -> list[Seen]:
            trace.records.clear()
            model(**batch)
            at = trace.records[0].at.mask.reshape(-1)
            flat = [(r.logits.flatten(0, -2), r.index.flatten(0, -2), r.weight.flatten(0, -2)) for r in
                    trace.records[0].layers.values()]  # fmt: skip
            return [Seen(*one, counted=at) for one in flat]

        yield run


def _own_forbid(model: PreTrainedModel, batch: Batch, site: Site, expert: int) -> None:
    with attach(model, [Forbid(pairs(site.layer, expert))]):
        model(**batch)


TOOLS = {
    "bare forward": Tool(_bare),
    "output_router_logits": Tool(_option),
    "plain hooks": Tool(_hooks, _hooks_forbid),
    "nnsight": Tool(_nnsight, _nnsight_forbid, "nnsight"),
    "TransformerLens": Tool(_lens, _lens_forbid, "transformer-lens"),
    "mechanism, streaming": Tool(_streaming),
    "mechanism, full": Tool(_full, _own_forbid),
}
"""By name. Each is used as its own documents say, at the router's output: its first tensor are the logits."""
