"""What watching routing costs with the tools that people use: passes in turns in one run, and peak memory."""

import multiprocessing
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import quantile_test
from transformers import PreTrainedModel

from ..corpus.library import DATA
from ..models.memory import peak_memory
from ..nn.lm import LMConfig
from ..study.base.turns import by_case, in_turns, timed
from .tool_checks import ABSENT
from .tool_kit import TOOLS, Batch, Run

SHAPES = {
    "embedded": (LMConfig(), (8, 256)),
    "wide": (LMConfig(hidden=512, layers=4, heads=8, experts=64, top_k=8, expert_width=256), (4, 256)),
}
"""A model's shape, and batches of `(batch, pos)`: the embedded model's, and 512 wide with 64 experts, eight a token."""
BARE = "bare forward"
PASSES = 8
"""After which memory is measured, what the tool gave of all of them being kept."""


def bench_tools(
    shape: str, repeats: int = 15, tools: Sequence[str] = tuple(TOOLS), memory: bool = True
) -> pd.DataFrame:
    """A row per tool on a model of random weights: `shape`, `tool`, `version`; median `seconds` of a pass, what the
    tool does before and after it for each pass included; `ratio` to the bare forward of the same turn, the median over
    turns with its 95 % interval `low`, `high` (six turns or more);
    `megabytes`, the largest resident memory of a
    process of its own that keeps what the tool gave of eight passes, and how much that is `more` than of bare passes.
    Empty for a tool that is not installed. Each tool has its own copy of the model: TransformerLens changes it.

    Raises:
        ValueError: an unknown shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}; use {' or '.join(SHAPES)}")
    present = [name for name in tools if TOOLS[name].version is not None]
    with ExitStack() as stack, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the others
        runs: dict[str, Run] = {name: stack.enter_context(TOOLS[name].watch(_model(shape))) for name in present}
        batches = [_batch(shape, turn) for turn in range(repeats + 2)]
        taken = by_case(in_turns(runs, lambda run, turn: timed(lambda: run(batches[turn])), repeats, rotate=True))
    rows = []
    for name in tools:
        row: dict[str, Any] = {"shape": shape, "tool": name, "version": TOOLS[name].version}
        if name not in present:
            rows.append(row | {"version": ABSENT})
            continue
        rows.append(row | _summary(taken[name], taken[BARE]) | ({"megabytes": peak(shape, name)} if memory else {}))
    table = pd.DataFrame(rows)
    return table.assign(more=(table["megabytes"] - table["megabytes"][0]).round(1)) if memory else table


def record() -> Path:
    """Where the kept table stands."""
    return DATA / "baselines" / "tools.csv"


def _summary(seconds: Sequence[float], bare: Sequence[float]) -> dict[str, float]:
    ratios = np.divide(seconds, bare)
    interval = quantile_test(ratios, q=1, p=0.5).confidence_interval(0.95)
    values = {"seconds": np.median(seconds), "ratio": np.median(ratios), "low": interval.low, "high": interval.high}
    return {name: round(float(value), 4) for name, value in values.items()}


def _model(shape: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return SHAPES[shape][0].build().eval()


def _batch(shape: str, seed: int) -> Batch:
    config, size = SHAPES[shape]
    ids = torch.randint(config.vocab, size, generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}


def peak(shape: str, tool: str) -> float:
    """Peak resident memory in MB of a fresh process that watches eight passes with a tool."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_watched, (shape, tool))


def _watched(shape: str, tool: str) -> float:
    warnings.simplefilter("ignore")
    with torch.no_grad(), TOOLS[tool].watch(_model(shape)) as run:
        kept = [run(_batch(shape, number)) for number in range(PASSES)]
    assert len(kept) == PASSES
    return round(peak_memory() / 1e6, 1)
