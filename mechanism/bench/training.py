"""Training throughput of the embedded model on this machine, by experts implementation, dtype and compilation."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..nn.train_config import TrainConfig
from ..nn.training import Trainer
from ..study.base.turns import by_case, in_turns

EMBEDDED = TrainConfig()
# The first is what the others are compared with; the last is what the committed configurations of large runs use.
VARIANTS: tuple[dict[str, Any], ...] = tuple(
    {"experts": experts, "dtype": dtype, "compile": compiled}
    for dtype in ("float32", "bfloat16")
    for compiled in (False, True)
    for experts in ("grouped_mm", "padded")
)


def bench(steps: int = 8, config: TrainConfig = EMBEDDED, variants: Sequence[dict[str, Any]] = VARIANTS) -> dict:
    """Tokens per second of whole training steps (data, forward, backward, optimiser) on random tokens.

    The variants take turns step by step, so that what slows the machine slows all of them; two first turns are left
    out.

    Returns:
        `name`, `cases` (each variant with the `median` and the `best` of its tokens per second, and `ratio`, the median
        over turns of its rate to that of the first variant), and the `ratio` of the last variant.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            str(i): Trainer(replace(config, **variant), partial(_random_tokens, config), Path(folder) / str(i))
            for i, variant in enumerate(variants)
        }
        taken = in_turns(trainers, step_seconds, steps)
    seconds = np.array(list(by_case(taken).values())).T
    cases = compare(config.step_tokens / np.maximum(seconds, 1e-3), variants)
    return {"name": "train", "ratio": cases[-1]["ratio"], "cases": cases}


def step_seconds(trainer: Trainer, turn: int) -> float:
    """Seconds of the next training step; see `in_turns`."""
    return trainer.advance()["seconds"]


def compare(rates: np.ndarray, variants: Sequence[dict[str, Any]]) -> list[dict]:
    """One row per variant from rates `(turn, variant)`: median, best, and the paired ratio to the first variant."""
    ratios = np.median(rates / rates[:, :1], axis=0)
    return [
        {**variant, "median": round(float(np.median(rate))), "best": round(float(rate.max())), "ratio": round(ratio, 3)}
        for variant, rate, ratio in zip(variants, rates.T, ratios.tolist(), strict=True)
    ]


def _random_tokens(config: TrainConfig, step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(config.model.vocab, size=(config.batch, config.length + 1))
