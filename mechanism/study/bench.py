"""Training throughput of the embedded model on this machine, by experts implementation and dtype."""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..nn.training import TrainConfig, Trainer

EMBEDDED = TrainConfig()
VARIANTS: tuple[dict[str, Any], ...] = (
    {"experts": "grouped_mm", "dtype": "float32", "compile": False},
    {"experts": "padded", "dtype": "float32", "compile": False},
    {"experts": "grouped_mm", "dtype": "float32", "compile": True},
    {"experts": "padded", "dtype": "float32", "compile": True},
    {"experts": "grouped_mm", "dtype": "bfloat16", "compile": False},
    {"experts": "padded", "dtype": "bfloat16", "compile": False},
    {"experts": "padded", "dtype": "bfloat16", "compile": True},
)


def bench(steps: int = 8, config: TrainConfig = EMBEDDED) -> list[dict]:
    """Tokens per second of whole training steps (data, forward, backward, optimiser) on random tokens, the first two
    steps left out: one row per variant with the median and the best."""
    rows = []
    for variant in VARIANTS:
        rates = _rates(replace(config, **variant), steps)
        rows.append({**variant, "median": round(float(np.median(rates))), "best": round(max(rates))})
    return rows


def _rates(config: TrainConfig, steps: int) -> list[float]:
    def batch(step: int) -> np.ndarray:
        rng = np.random.default_rng(step)
        return rng.integers(config.model.vocab, size=(config.batch, config.length + 1))

    with TemporaryDirectory() as folder:
        trainer = Trainer(config, batch, Path(folder), checkpoint_seconds=np.inf)
        times: list[float] = []
        started = time.perf_counter()

        def tick(row: dict) -> None:
            times.append(time.perf_counter())

        trainer.run(tick, stop_after=steps + 2)
    return [config.step_tokens / seconds for seconds in np.diff([started, *times])[2:]]
