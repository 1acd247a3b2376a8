"""Where a model routes: routers and experts found by structure, never by configuration or by guess."""

import inspect
import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import torch
import transformers
from torch import Tensor, nn

from .errors import DenseModelError, RouterError

_ROUTER_CHILDREN = ("router", "gate", "wg")
_EXPERTS_CLASS = re.compile(r"(Experts|NaiveMoe)$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|blocks?|h)\.(\d+)\.")


@dataclass(frozen=True, eq=False)
class Site:
    """One router and the experts it feeds.

    Attributes:
        layer: decoder layer index of the model, dense layers counted.
        router, experts, block: modules as they are called, adapters around them included; `path`, `experts_path` names
            in the model.
        kind: how the seam is reached: `standard` (experts are called with hidden states, index and weight),
            `block` (the router returns logits, the block's `route_tokens_to_experts` selects), `scores` (Llama 4: dense
            scores multiply the experts' input), `sorted` (JetMoe: slots sorted by expert) or `capacity` (Switch
            Transformers: one class a token by a maximum, in one-hot form, none beyond what an expert has room for).
        columns: width of the linear map that makes the logits.
        classes: what a token can be routed to, the leading columns: experts, then classes that compute nothing.
        num_experts: routed experts with weights.
        top_k: slots per token.
        shared: names of the shared experts beside the routed ones.
        heads: consecutive rows of the router that make up a token, by its `rows_per_token`; 1 unless it says otherwise.
        weight: the gate's matrix `(columns, d)`.
        gate: module inside the router whose output is the logits, with whatever is wrapped around its matrix (adapters,
            quantisation); None if the router applies its matrix itself.
    """

    layer: int
    router: nn.Module
    path: str
    experts: nn.Module
    experts_path: str
    block: nn.Module
    kind: str
    columns: int
    classes: int
    num_experts: int
    top_k: int
    shared: tuple[str, ...] = ()
    heads: int = 1
    weight: Tensor = field(repr=False, default_factory=lambda: torch.empty(0))
    gate: nn.Module | None = field(repr=False, default=None)

    @property
    def name(self) -> str:
        """How errors name the site."""
        return f"layer {self.layer}: {self.path} ({type(self.router).__name__})"

    @property
    def stack_path(self) -> str:
        """Name in the model of the list of decoder layers."""
        found = _LAYER.search(self.experts_path + ".")
        assert found is not None
        return self.experts_path[: found.start(1) - 1]

    def rows(self, tokens: Tensor) -> Tensor:
        """Values `(token,)` as values `(row,)` of the router."""
        return tokens if self.heads == 1 else tokens.repeat_interleave(self.heads)


def find_sites(model: nn.Module) -> list[Site]:
    """Every site of a model, by layer.

    Raises:
        DenseModelError: no routers.
        RouterError: an encoder-decoder model as a whole; experts that do not run what their router selects, or whose
            router cannot be identified; a router whose gate, number of experts or top-k cannot be read off the modules.
    """
    modules = dict(model.named_modules())
    _refuse_misrouted(modules)
    if {"encoder", "decoder"} <= {name.rpartition(".")[2] for name in modules} and getattr(
        getattr(model, "config", None), "is_encoder_decoder", False
    ):
        raise RouterError(
            f"{type(model).__name__} is an encoder-decoder model, whose two parts route other tokens: attach to "
            "model.get_encoder(), to model.get_decoder(), or to each; both are observed when the whole model runs"
        )
    found = dict(_called(modules, path) for path, module in modules.items() if _is_experts(path, module))
    sites = [_site(modules, path, own) for path, own in found.items()]
    if not sites:
        _nothing_found(model, modules)
    layers = [s.layer for s in sites]
    repeated = {layer for layer in layers if layers.count(layer) > 1}
    if repeated:
        raise RouterError(
            f"layers {sorted(repeated)} of {type(model).__name__} have more than one router feeding experts"
        )
    return sorted(sites, key=lambda s: s.layer)


def _refuse_misrouted(modules: dict[str, nn.Module]) -> None:
    """NLLB-MoE of transformers 5 hands its experts a mask of zeros and ones where they read numbers of experts."""
    for path, module in modules.items():
        if type(module).__name__ == "NllbMoeExperts":
            raise RouterError(
                f"{path} ({type(module).__name__}) of transformers {transformers.__version__} does not run the experts "
                "that its router selects: it reads the router's mask of zeros and ones as numbers of experts, 0 and 1"
            )


def _nothing_found(model: nn.Module, modules: dict[str, nn.Module]) -> NoReturn:
    name = type(model).__name__
    inside = [f"{path} ({type(m).__name__})" for path, m in modules.items() if path]
    suspects = [text for text in inside if re.search(r"\(.*(Expert|MoE|Moe)", text)]
    if suspects:
        raise RouterError(
            f"{name} has modules that look like experts but no router and experts pair that can be observed, first "
            f"{suspects[0]}; it routes in a way this version does not know"
        )
    raise DenseModelError(f"{name} has no routers: it is a dense model; choose a mixture-of-experts model")


def _is_experts(path: str, module: nn.Module) -> bool:
    """Routed experts: a class named so whose forward takes states, index and weights, or one of two known others."""
    name = type(module).__name__
    if not _EXPERTS_CLASS.search(name) or path.rpartition(".")[2].startswith("shared"):
        return name == "JetMoeMoE"
    forward = inspect.unwrap(type(module).forward)  # takes the module and three more
    return name == "Llama4TextExperts" or len(inspect.signature(forward).parameters) == 4


def _called(modules: dict[str, nn.Module], path: str) -> tuple[str, nn.Module]:
    """Name of what a block calls as its experts, adapters around them included, and the experts themselves."""
    at = path
    while type(modules[path]).__name__ != "JetMoeMoE" and _LAYER.search((parent := at.rpartition(".")[0]) + "."):
        if _routers(modules[parent]):
            return at, modules[path]
        at = parent
    return path, modules[path]


def _routers(block: nn.Module) -> list[str]:
    return [name for name, _ in block.named_children() if name in _ROUTER_CHILDREN]


def _site(modules: dict[str, nn.Module], experts_path: str, own: nn.Module) -> Site:
    experts = modules[experts_path]
    block_path = experts_path if type(own).__name__ == "JetMoeMoE" else experts_path.rpartition(".")[0]
    block = modules[block_path]
    found = _routers(block)
    if len(found) != 1:
        raise RouterError(
            f"{block_path or type(block).__name__} ({type(block).__name__}) holds experts but "
            f"{'no child' if not found else 'several children'} named {', '.join(found or _ROUTER_CHILDREN)}; "
            "its router cannot be identified"
        )
    router, path = block.get_submodule(found[0]), f"{block_path}.{found[0]}"
    layer = _LAYER.search(experts_path + ".")
    if layer is None:
        raise RouterError(f"{path} ({type(router).__name__}) lies in no numbered decoder layer")
    gate, weight = _gate(router, path)
    columns = int(getattr(gate, "out_features", weight.shape[0]))  # of a packed matrix the shape says nothing
    count = partial(_count, path, columns)
    kind = _kind(own, block)
    scores_shared = getattr(router, "n_total_experts", None) is not None  # Inkling: its gate scores shared experts too
    return Site(
        layer=int(layer.group(1)),
        router=router,
        path=path,
        experts=experts,
        experts_path=experts_path,
        block=block,
        kind=kind,
        columns=columns,
        classes=columns - (int(router.n_shared_experts) if scores_shared else 0),  # type: ignore[arg-type]
        num_experts=count("experts", ("num_experts", "num_routed_experts"), own, *router.modules()),
        top_k=1 if kind == "capacity" else count("top-k", ("top_k", "moe_top_k"), *router.modules(), block),
        shared=tuple(n for n, _ in block.named_children() if "shared" in n and not n.endswith("gate")),
        heads=int(getattr(router, "rows_per_token", 1)),
        weight=weight,
        gate=None if gate is router else gate,
    )


def _kind(own: nn.Module, block: nn.Module) -> str:
    if type(own).__name__ == "Llama4TextExperts":
        return "scores"
    if type(own).__name__ == "JetMoeMoE":
        return "sorted"
    if type(own).__name__ == "SwitchTransformersExperts":
        return "capacity"
    return "block" if callable(getattr(block, "route_tokens_to_experts", None)) else "standard"


def _gate(router: nn.Module, path: str) -> tuple[nn.Module, Tensor]:
    """The module that makes the logits and its matrix: the router itself if it has one, else its last linear map. What
    lies inside a module that has a matrix (the parts of an adapter) belongs to it."""
    maps, inside = [], set[nn.Module]()
    for module in router.modules():
        weight = None if module in inside else getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim == 2:
            maps.append((module, weight))
            inside |= set(module.modules())
    if not maps:
        raise RouterError(f"{path} ({type(router).__name__}) holds no linear map that could make router logits")
    return maps[-1]


def _count(path: str, limit: int, what: str, names: tuple[str, ...], *owners: nn.Module) -> int:
    values: list[Any] = [getattr(owner, name, None) for owner in owners for name in names]
    configs = [getattr(owner, "config", None) for owner in owners]
    values += [getattr(c, "top_k_experts", None) for c in configs if what == "top-k"]
    known = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    if not known or not 1 <= known[0] <= limit:
        raise RouterError(
            f"{path}: the number of {what} cannot be read off its modules (found {known[:1] or 'none'}, the gate has "
            f"{limit} rows)"
        )
    return known[0]
