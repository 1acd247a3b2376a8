"""The host waits for a device at most once a pass, whatever the number of layers: counted on a CPU, where every
operation that would wait for a GPU can be seen."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mechanism.trace import (
    Ablate,
    Activate,
    Deactivate,
    Forbid,
    ForceSelection,
    RoutingStats,
    ScaleWeight,
    SoftSteer,
    attach,
    expert_means,
    find_sites,
    host,
    pairs,
)
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import VOCAB

IDS = torch.randint(3, VOCAB, (3, 14), generator=torch.Generator().manual_seed(1))
MASK = (torch.arange(14) < torch.tensor([14, 9, 12])[:, None]).long()
READS = ("__bool__", "__int__", "__float__", "__index__", "item", "tolist", "numpy", "__array__", "__contains__", "cpu")
SIZED = (
    "nonzero", "masked_select", "_unique", "unique", "bincount", "equal", "is_nonzero", "histc", "isin", "_linalg_eigh",
)  # fmt: skip
"""Operators whose result's shape, or whose value, the host has to know: torch waits in them."""


class Host(Tensor):
    """A tensor that was read already: looking at it waits for nothing."""


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU: operators of a size unknown beforehand, masks used as an index, single values
    read, and copies to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.reads = _Reads(self)

    def __enter__(self):
        self.reads.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.reads.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        index = args[1] if name.startswith(("index", "_index_put")) and len(args) > 1 else ()
        masks = [t for t in index if isinstance(t, Tensor) and t.dtype in (torch.bool, torch.uint8)] if isinstance(
            index, Sequence) else []  # fmt: skip
        unsized = name == "repeat_interleave" and not (kwargs or {}).get("output_size") and isinstance(args[0], Tensor)
        if masks or unsized or name.startswith(SIZED):
            self.told.append(name)
        return func(*args, **(kwargs or {}))


class _Reads(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        to_host = name == "to" and "cpu" in (*args[1:], *(kwargs or {}).values())
        free = args and (isinstance(args[0], Host) or not isinstance(args[0], Tensor))
        if (name in READS or to_host) and not free:
            self.waits.told.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch) -> Callable[..., list[str]]:
    """What a call waited for. The one copy that a pass makes of all that it wants to know counts once."""
    whole = host.to_host

    def counted(tensors: Sequence[Tensor]) -> list[Tensor]:
        now.told.append("copy")
        return [t.as_subclass(Host) for t in whole(tensors)]

    now = Waits()
    monkeypatch.setattr(host, "to_host", counted)

    def run(call: Callable) -> list[str]:
        nonlocal now
        now = Waits()
        with torch.no_grad(), now:
            call()
        return list(now.told)

    return run


def edits(layers):
    """Every intervention at once, each on experts of its own, some on a part of the tokens."""
    at = lambda expert: pairs(layers, expert)  # noqa: E731
    return {
        "nothing": [],
        "logits": [SoftSteer(at(0), strength=0.5), Activate(at(1)), Deactivate(at([2, 3]))],
        "selection": [ForceSelection(at(1)), Forbid(at(2), positions=(3, None))],
        "weights": [ScaleWeight(at(0), factor=0.5, renormalise=True), Ablate(at(1)), Ablate(at(2), mode="mean")],
        "rerouting": [Ablate(at(1), mode="reroute", where="odd")],
    }


def added(waits, family, layers, which, **options):
    """What watching a pass waits for beyond the pass itself."""
    model = tiny_model(family, **{"num_hidden_layers": layers} if layers else {})
    routed = [site.layer for site in find_sites(model)]
    given = {"input_ids": IDS, "attention_mask": MASK, "use_cache": False}
    bare = waits(lambda: model(**given))
    means = expert_means(model, [given, {**given, "input_ids": IDS.flip(1)}]) if which == "weights" else None
    if means is not None:
        means = {layer: mean.nan_to_num() for layer, mean in means.items()}
    masks = {"odd": lambda ids: ids % 2 == 1}
    with attach(model, edits(routed)[which], masks=masks, means=means, **options) as trace:
        found = waits(lambda: model(**given))
    assert bool(trace.records) == options.get("keep", True)
    for name in bare:
        found.remove(name)
    return found


@pytest.mark.parametrize("which", ["nothing", "logits", "selection", "weights", "rerouting"])
@pytest.mark.parametrize("layers", [2, 6])
def test_a_watched_and_edited_pass_waits_once(waits, which, layers):
    assert added(waits, "qwen3_moe", layers, which, stats=RoutingStats(sequences=True)) == ["copy"]


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3", "gpt_oss", "dbrx", "zaya", "phimoe"])
def test_families_with_other_rules_wait_once(waits, family):
    assert added(waits, family, None, "nothing", stats=RoutingStats()) == ["copy"]
    assert added(waits, family, None, "rerouting") == ["copy"]


def test_statistics_alone_wait_once(waits):
    assert added(waits, "qwen3_moe", 6, "nothing", keep=False, stats=RoutingStats()) == ["copy"]


def test_a_wait_is_seen(waits):
    tensor = torch.arange(4.0)
    for one in (
        lambda: bool(tensor.any()), lambda: tensor[tensor > 1], lambda: tensor.nonzero(), lambda: tensor.sum().item(),
        lambda: tensor.cpu(), lambda: tensor.to("cpu"), lambda: tensor.tolist(), lambda: torch.bincount(tensor.long()),
        lambda: torch.isin(tensor, tensor[:1]), lambda: float(tensor[0]),
    ):  # fmt: skip
        assert waits(one)
    assert not waits(lambda: tensor.sum() + tensor[tensor.long()])
