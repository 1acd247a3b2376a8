"""What the tools that people watch routing with get wrong, found by running them beside what the experts received."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..corpus.library import DATA
from ..trace import Site, find_sites
from ..trace.families import tiny_model
from .tool_kit import TOOLS, Batch, Seen, Tool

FAMILIES = ("olmoe", "mixtral", "deepseek_v3", "glm4_moe", "gpt_oss", "phimoe")
"""Families whose experts are called with an index and weights, which are what is compared with."""
CHECKED = ("output_router_logits", "plain hooks", "nnsight", "TransformerLens", "mechanism, full")
TOLERANCE = 1e-4
"""Of a weight."""
ABSENT = "not installed"


@dataclass
class Received:
    """What the experts of one layer were given: `(row, slot)`."""

    index: Tensor
    weight: Tensor


def check_tools(families: Sequence[str] = FAMILIES, tools: Sequence[str] = CHECKED) -> pd.DataFrame:
    """A row per tool and family, on a tiny model and two rows of text of which one is padded:

    `gives`; `selection`, the share of the tokens whose set of experts is the one that the experts module received
    (where a tool gives logits only: their top-k); `weights`, the share whose weights are within a ten-thousandth of
    those received (from logits: their softmax over all experts, renormalised where the configuration says so);
    `padding`, whether its tokens are left out; `edit`: whether the edit that the tool offers keeps an expert from
    being selected (its logit at the router's output set to minus infinity; of ours, `Forbid`). Empty where a tool gives
    nothing of the kind; what it raises instead stands under `gives`.
    """
    return pd.DataFrame([_row(name, family) for family in families for name in tools])


def _row(name: str, family: str) -> dict[str, Any]:
    tool = TOOLS[name]
    found: dict[str, Any] = {"tool": name, "family": family}
    if tool.version is None:
        return found | dict.fromkeys(("gives", "selection", "weights", "padding", "edit")) | {"gives": ABSENT}
    model, batch = tiny_model(family), _batch()
    try:
        found |= _observed(tool, copy.deepcopy(model), batch)
    except Exception as error:  # a tool of others may raise anything
        found |= dict.fromkeys(("selection", "weights", "padding")) | {"gives": _refusal(error)}
    return found | {"edit": _edited(tool, copy.deepcopy(model), batch)}


def _refusal(error: Exception) -> str:
    return f"refused: {error}".splitlines()[0]


def _batch() -> Batch:
    ids = torch.randint(3, 97, (2, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    return {"input_ids": ids, "attention_mask": mask, "use_cache": False}


class Oracle:
    """Plain hooks on the experts modules: what each was given last."""

    def __init__(self, sites: Sequence[Site]) -> None:
        self.received: dict[int, Received] = {}
        for site in sites:
            site.experts.register_forward_pre_hook(self._hook(site), with_kwargs=True)

    def _hook(self, site: Site) -> Any:
        def keep(module: nn.Module, args: tuple, kwargs: dict) -> None:
            slots = [t for t in (*args[1:], *kwargs.values()) if isinstance(t, Tensor) and t.shape[-1] == site.top_k]
            index = next(t for t in slots if not t.is_floating_point())
            self.received[site.layer] = Received(index, next(t for t in slots if t.is_floating_point()).float())

        return keep


@torch.no_grad()
def _observed(tool: Tool, model: PreTrainedModel, batch: Batch) -> dict[str, Any]:
    sites = find_sites(model)
    oracle, real = Oracle(sites), batch["attention_mask"].reshape(-1) != 0
    with tool.watch(model) as run:
        seen = run(batch)
    if len(seen) != len(sites):
        return {"gives": f"{len(seen)} of {len(sites)} layers", **dict.fromkeys(("selection", "weights", "padding"))}
    parts = [(*_derived(one, site, model), oracle.received[site.layer]) for one, site in zip(seen, sites, strict=True)]
    selection = [_same_set(index, truth.index)[real] for index, _, truth in parts]
    weights = [_same_weights(index, weight, truth)[real] for index, weight, truth in parts]
    rows = {len(real) if one.counted is None else int(one.counted.sum()) for one in seen}
    return {
        "gives": "logits" if seen[0].index is None else "logits, selection, weights",
        "selection": round(float(torch.cat(selection).float().mean()), 4),
        "weights": round(float(torch.cat(weights).float().mean()), 4),
        "padding": "left out" if rows == {int(real.sum())} else "counted",
    }


def _derived(seen: Seen, site: Site, model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Selection and weights, made of the logits where a tool gives no more."""
    if seen.index is not None and seen.weight is not None:
        return seen.index, seen.weight.float()
    assert seen.logits is not None
    weight, index = seen.logits.float().softmax(-1).topk(site.top_k)
    if getattr(model.config, "norm_topk_prob", type(model.config).__name__ in ("MixtralConfig", "GptOssConfig")):
        weight = weight / weight.sum(-1, keepdim=True)
    return index, weight


def _same_set(index: Tensor, other: Tensor) -> Tensor:
    return (index.long().sort(-1).values == other.long().sort(-1).values).all(-1)


def _same_weights(index: Tensor, weight: Tensor, truth: Received) -> Tensor:
    """`(row,)` whether every expert has the weight that was received, whatever the order of slots."""
    width = int(max(index.max(), truth.index.max())) + 1
    dense = [
        torch.zeros(len(i), width).scatter(1, i.long(), w) for i, w in ((index, weight), (truth.index, truth.weight))
    ]
    return (dense[0] - dense[1]).abs().amax(-1) <= TOLERANCE


def record() -> Path:
    """Where the kept table stands."""
    return DATA / "baselines" / "tools_checked.csv"


@torch.no_grad()
def _edited(tool: Tool, model: PreTrainedModel, batch: Batch) -> str | None:
    if tool.forbid is None:
        return "none offered"
    sites = find_sites(model)
    oracle = Oracle(sites)
    model(**batch)
    site = sites[0]
    expert = int(oracle.received[site.layer].index.flatten().bincount().argmax())
    try:
        tool.forbid(model, batch, site, expert)
    except Exception as error:  # a tool of others may raise anything
        return _refusal(error)
    return "no effect, no word" if bool((oracle.received[site.layer].index == expert).any()) else "acts"
