"""What other published layers compute, and how fast: `mh-moe` and `st-moe-pytorch` beside ours, where installed."""

import contextlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ..corpus.library import DATA
from ..nn.experts import ACTIVATIONS
from ..nn.moe import SparseMoE, SparseMoEConfig
from ..nn.multihead import MultiHeadMoE, MultiHeadMoEConfig
from ..study.base.turns import by_case, in_turns, layer_seconds

PEERS = {"mh-moe": "mh_moe", "st-moe-pytorch": "st_moe_pytorch"}
NEEDED = ("CoLT5-attention", "local-attention", "hyper-connections", "torch-einops-utils")
"""What st-moe-pytorch imports."""
TOLERANCE = 1e-3
"""Of an output, relative to its largest value."""
Rows = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A layer under test.

    Attributes:
        module: in evaluation mode; call: `(1, token, d) -> (1, token, d)`.
        experts: where the weights of experts are, None if the module holds none; router: weight of the router.
        formula: sum over the selected experts of weight times output, by a loop; None where there are no experts to
            compute it with.
    """

    module: nn.Module
    call: Rows
    experts: nn.Module | None
    router: Tensor | None
    formula: Rows | None


def bench_peers(tokens: int = 1024, repeats: int = 5, hidden: int = 96, experts: int = 16) -> pd.DataFrame:
    """A row per layer, all with two slots a row, experts as wide as each package makes them: `layer`, `version`,
    `torch`, `threads`; `expert parameters` that the module holds; `repeat error`, the largest difference between two
    evaluations of one input; `as formula`, the share of tokens whose output is the weighted sum of their experts'
    outputs; `router learns`, whether its router gets a gradient; milliseconds of a `forward` and of a `training` pass.
    NaN where there is nothing to measure."""
    torch.manual_seed(0)
    x = torch.randn(1, tokens, hidden)
    made = {"mechanism SparseMoE": _sparse, "mechanism MultiHeadMoE": _heads, "st-moe-pytorch": _st, "mh-moe": _mh}
    facts = {"torch": torch.__version__.split("+")[0], "threads": torch.get_num_threads()}
    subjects = {name: build(hidden, experts) for name, build in made.items() if name not in PEERS or _version(name)}
    measured = pd.DataFrame([_measure(subject, x) for subject in subjects.values()])
    names = pd.DataFrame([{"layer": name, "version": _version(name.split(" ")[0]), **facts} for name in subjects])
    return names.join(measured).assign(
        forward=_milliseconds(subjects, x, False, repeats), training=_milliseconds(subjects, x, True, repeats)
    )


def missing() -> str:
    """How to install the peers that are not there; empty when all are."""
    lacking = [name for name in PEERS if not _version(name)]
    command = f"pip install --no-deps {' '.join((*lacking, *NEEDED))}"
    return f"not installed: {', '.join(lacking)}; `{command}`" if lacking else ""


def record() -> Path:
    """Where the kept table stands."""
    return DATA / "baselines" / "peers.csv"


def write(table: pd.DataFrame) -> None:
    """Keep a table."""
    record().parent.mkdir(exist_ok=True)
    table.to_csv(record(), index=False)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _measure(subject: Subject, x: Tensor) -> dict[str, object]:
    with torch.no_grad():
        first, second = subject.call(x), subject.call(x)
        same = None if subject.formula is None else _close(first, subject.formula(x))
    layer_seconds(subject.module, subject.call, x, True)
    gradient = None if subject.router is None else subject.router.grad
    held = 0 if subject.experts is None else sum(p.numel() for p in subject.experts.parameters())
    return {
        "expert parameters": held,
        "repeat error": float((first - second).abs().max()),
        "as formula": np.nan if same is None else float(same.float().mean()),
        "router learns": gradient is not None and bool(gradient.abs().sum() > 0),
    }


def _milliseconds(subjects: Mapping[str, Subject], x: Tensor, backward: bool, repeats: int) -> list[float]:
    """Medians of passes in turns."""
    taken = in_turns(subjects, lambda own, turn: layer_seconds(own.module, own.call, x, backward), repeats)
    return [round(1e3 * float(np.median(own)), 1) for own in by_case(taken).values()]


def _close(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).abs().amax(-1) <= TOLERANCE * wanted.abs().amax(-1)


def _mixture(rows: Tensor, router: Tensor, outputs: list[Tensor]) -> Tensor:
    """Two best experts by softmax, their weights brought to the sum 1; `outputs` of every expert for every row."""
    weight, index = (rows @ router.T).softmax(-1).topk(2)
    weight = weight / weight.sum(-1, keepdim=True)
    chosen = torch.stack(outputs, 1).gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))
    return (weight[..., None] * chosen).sum(1)


def _own(layer: SparseMoE | MultiHeadMoE, rows: Tensor) -> Tensor:
    held, act = layer.experts, ACTIVATIONS[layer.experts.activation]
    outputs = [act(rows @ up.T) @ down.T for up, down in zip(held.up_proj, held.down_proj, strict=True)]
    return _mixture(rows, layer.router.weight, outputs)


def _sparse(hidden: int, experts: int) -> Subject:
    layer = SparseMoE(SparseMoEConfig(hidden, experts, top_k=2, width=hidden)).eval()
    return Subject(layer, layer, layer.experts, layer.router.weight, lambda x: _own(layer, x[0])[None])


def _heads(hidden: int, experts: int) -> Subject:
    layer = MultiHeadMoE(MultiHeadMoEConfig(hidden, experts, top_k=2, width=hidden, heads=2)).eval()
    assert layer.head is not None
    assert layer.merge is not None
    head, merge = layer.head, layer.merge

    def formula(x: Tensor) -> Tensor:
        rows = head(x[0]).reshape(-1, hidden // 2)
        return merge(_own(layer, rows).reshape(-1, hidden))[None]

    return Subject(layer, layer, layer.experts, layer.router.weight, formula)


def _st(hidden: int, experts: int) -> Subject:
    layer = import_module(PEERS["st-moe-pytorch"]).MoE(dim=hidden, num_experts=experts, gating_top_n=2).eval()
    router, held = layer.gate.to_gates.weight, layer.experts.experts

    def formula(x: Tensor) -> Tensor:
        return _mixture(x[0], router, [expert(x[0]) for expert in held])[None]

    return Subject(layer, lambda x: layer(x)[0], layer.experts, router, formula)


def _mh(hidden: int, experts: int) -> Subject:
    layer = import_module(PEERS["mh-moe"]).MHMoE(dim=hidden, heads=2, num_experts=experts, num_layers=1).eval()

    def call(x: Tensor) -> Tensor:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints shapes
            return layer(x, None)

    return Subject(layer, call, None, None, None)
