"""The parameter formulas of "Transformer Q102" completed, and both counted on built models."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
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


def tuned_ratio(tuned: sp.Expr = TUNED_PRINTED) -> sp.Expr:
    """Tuned parameters relative to a model per language, simplified."""
    return sp.simplify(tuned / TUNED_DENSE)


def shared_experts_for(growth: sp.Expr | float, few: int = 10, many: int = 100) -> sp.Expr:
    """How many shared experts t, for s of its own for each language, make the number of experts s n + t grow by no more
    than `growth` from few to many languages."""
    experts = OWN * LANGUAGES + SHARED
    equation = sp.Eq(experts.subs(LANGUAGES, many), sp.nsimplify(growth) * experts.subs(LANGUAGES, few))
    (found,) = sp.solve(equation, SHARED)
    return found


def growth_exponent(growth: sp.Expr | float, fold: int = 10) -> sp.Expr:
    """The power a of n^a that grows by `growth` when n grows `fold`-fold."""
    return sp.log(sp.nsimplify(growth)) / sp.log(fold)


@dataclass(frozen=True)
class CountGrid:
    """Configurations whose built models are counted: every combination of the named sizes.

    Attributes:
        languages, layers, experts, top_k: sizes; hidden, width: of a token and of an expert.
    """

    languages: tuple[int, ...] = (1, 2, 4)
    layers: tuple[int, ...] = (1, 2, 3)
    experts: tuple[int, ...] = (4, 8)
    top_k: tuple[int, ...] = (1, 2)
    hidden: int = 8
    width: int = 6

    def configs(self) -> Iterable[tuple[int, VariantConfig]]:
        """Number of languages and sparse model."""
        for n, layers, experts, top_k in product(self.languages, self.layers, self.experts, self.top_k):
            layer = SparseMoEConfig(self.hidden, experts, top_k, self.width, normalise=top_k > 1)
            yield n, VariantConfig(layer, vocab=11, layers=layers, heads=1, head_dim=8, context=8)


def counted(grid: CountGrid = CountGrid()) -> pd.DataFrame:
    """Feed-forward parameters of built models beside both sets of formulas.

    Returns one row per configuration and formula: `languages`, `layers`, `experts`, `top_k`, `quantity`, `counted`,
    `printed`, `completed`. Held parameters are those of the modules; active ones are half the FLOPs that
    `torch.utils.flop_counter` sees the feed-forward modules spend on a token. The dense layer is as wide as the
    selected experts together.
    """
    rows = []
    for n, config in grid.configs():
        layer = config.layer
        assert isinstance(layer, SparseMoEConfig)
        dense = replace(config, layer=DenseConfig(layer.hidden, layer.top_k * layer.width))
        sparse = _feed_forward(config)
        found = {
            "held, a model per language": n * _held(_feed_forward(dense)),
            "held, MoE": _held(sparse),
            "active, MoE": _active(sparse, layer.hidden),
        }
        values = {
            LANGUAGES: n, LAYERS: config.layers, EXPERTS: layer.experts, ACTIVE: layer.top_k,
            LAYER: 3 * layer.hidden * layer.top_k * layer.width, EXPERT: 3 * layer.hidden * layer.width,
            ROUTER: layer.hidden * layer.experts,
        }  # fmt: skip
        for quantity, count in found.items():
            formulas = {"printed": PRINTED[quantity], "completed": COMPLETED[quantity]}
            given = {name: int(formula.subs(values)) for name, formula in formulas.items()}
            sizes = {"languages": n, "layers": config.layers, "experts": layer.experts, "top_k": layer.top_k}
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
    sizes: dict[str, Any] = {"vocab": 11, "layers": layers, "heads": 1, "head_dim": 8, "context": 8}
    sparse = _feed_forward(VariantConfig(layer, **sizes))
    tuned = sum(p[:chosen].numel() for module in sparse for name, p in module.named_parameters() if "experts" in name)
    return tuned / _held(_feed_forward(VariantConfig(DenseConfig(hidden, wide), **sizes)))


def _feed_forward(config: VariantConfig) -> list[nn.Module]:
    return [decoder.mlp for decoder in config.build().model.layers]


def _held(modules: list[nn.Module]) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _active(modules: list[nn.Module], hidden: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for module in modules:
            module(torch.ones(1, hidden))
    return counter.get_total_flops() // 2
