"""The parameter formulas of "Transformer Q102" completed, and both counted on built models."""

from dataclasses import replace
from itertools import product
from typing import Any

import pandas as pd
import sympy as sp
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...nn.feedforward import DenseConfig
from ...nn.moe import SparseMoEConfig
from ...nn.variants import VariantConfig
from .source import ACTIVE, EXPERT, EXPERTS, LANGUAGES, LAYER, LAYERS, OWN, PRINTED, ROUTER, SHARED, TUNED_PRINTED

COMPLETED = {
    "held, a model per language": LAYERS * LAYER * LANGUAGES,
    "held, MoE": LAYERS * (EXPERTS * EXPERT + ROUTER),
    "active, MoE": LAYERS * (ACTIVE * EXPERT + ROUTER),
}
"""The same with what a model of L layers has: experts and a router of r parameters in every layer."""

TUNED_DENSE = LANGUAGES * LAYERS * LAYER
TUNED_LAYERS = LANGUAGES * LAYERS * (OWN + SHARED) * EXPERT
TUNED_ONCE = LAYERS * (LANGUAGES * OWN + SHARED) * EXPERT
"""Tuned parameters: of a model per language; of MoE with experts in every layer; and with the shared experts tuned once
for all languages, as sharing has it."""

FRAME: dict[str, Any] = {"vocab": 11, "heads": 1, "head_dim": 8, "context": 8}
"""What built models have besides their layers."""


def tuned_ratio(tuned: sp.Expr = TUNED_PRINTED) -> sp.Expr:
    """Tuned parameters relative to a model per language, simplified."""
    return sp.simplify(tuned / TUNED_DENSE)


def shared_experts_for(growth: float) -> sp.Expr:
    """How many shared experts t, for s of its own for each language, make the number of experts s n + t grow by no more
    than `growth` from 10 to 100 languages."""
    experts = OWN * LANGUAGES + SHARED
    equation = sp.Eq(experts.subs(LANGUAGES, 100), sp.nsimplify(growth) * experts.subs(LANGUAGES, 10))
    (found,) = sp.solve(equation, SHARED)
    return found


def growth_exponent(growth: float) -> sp.Expr:
    """The power a of n^a that grows by `growth` when n grows tenfold."""
    return sp.log(sp.nsimplify(growth)) / sp.log(10)


def counted() -> pd.DataFrame:
    """Feed-forward parameters of built models beside both sets of formulas.

    Returns one row per configuration and formula: `languages`, `layers`, `experts`, `top_k`, `quantity`, `counted`,
    `printed`, `completed`. Held parameters are those of the modules; active ones are half the FLOPs that
    `torch.utils.flop_counter` sees the feed-forward modules spend on a token. The dense layer is as wide as the
    selected experts together.
    """
    rows = []
    for n, layers, experts, top_k in product((1, 2, 4), (1, 2, 3), (4, 8), (1, 2)):
        layer = SparseMoEConfig(8, experts, top_k, width=6, normalise=top_k > 1)
        config = VariantConfig(layer, layers=layers, **FRAME)
        dense = replace(config, layer=DenseConfig(layer.hidden, layer.top_k * layer.width))
        sparse = _feed_forward(config)
        found = {
            "held, a model per language": n * _held(_feed_forward(dense)),
            "held, MoE": _held(sparse),
            "active, MoE": _active(sparse, layer.hidden),
        }
        values = {
            LANGUAGES: n, LAYERS: layers, EXPERTS: experts, ACTIVE: top_k, ROUTER: layer.hidden * experts,
            LAYER: 3 * layer.hidden * top_k * layer.width, EXPERT: 3 * layer.hidden * layer.width,
        }  # fmt: skip
        for quantity, count in found.items():
            formulas = {"printed": PRINTED[quantity], "completed": COMPLETED[quantity]}
            given = {name: int(formula.subs(values)) for name, formula in formulas.items()}
            sizes = {"languages": n, "layers": layers, "experts": experts, "top_k": top_k}
            rows.append({**sizes, "quantity": quantity, "counted": count, **given})
    return pd.DataFrame(rows)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """Share of configurations in which a formula equals the count: rows are quantities, columns `printed` and
    `completed`."""
    equal = table[["printed", "completed"]].eq(table["counted"], axis=0)
    return equal.groupby(table["quantity"]).mean()


def counted_tuned_ratio(own: int, shared: int, layers: int, expert_share: float = 1.0, hidden: int = 16) -> float:
    """Parameters of `own + shared` experts in every layer of a built MoE model, over those of the feed-forward layers
    of a built dense model, for one language.

    Args:
        expert_share: width of an expert over that of the dense layer, P_e / P; dense layers are 4 d wide.
    """
    wide, chosen = 4 * hidden, own + shared
    layer = SparseMoEConfig(hidden, chosen + 1, top_k=2, width=max(1, round(expert_share * wide)))
    sparse = _feed_forward(VariantConfig(layer, layers=layers, **FRAME))
    tuned = sum(p[:chosen].numel() for module in sparse for name, p in module.named_parameters() if "experts" in name)
    return tuned / _held(_feed_forward(VariantConfig(DenseConfig(hidden, wide), layers=layers, **FRAME)))


def _feed_forward(config: VariantConfig) -> list[nn.Module]:
    return [decoder.mlp for decoder in config.build().model.layers]


def _held(modules: list[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _active(modules: list[nn.Module], hidden: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for module in modules:
            module(torch.ones(1, hidden))
    return counter.get_total_flops() // 2
