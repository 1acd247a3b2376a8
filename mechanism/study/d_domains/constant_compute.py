"""Do experts add parameters at constant compute per token? Counted FLOPs and measured time of a layer: claim D8."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap
from torch import nn

from ...measure.evidence import Evidence
from ...nn.feedforward import DenseConfig
from ...nn.moe import SparseMoEConfig
from ..base.turns import EMBEDDED, fixed_threads, turns


@dataclass(frozen=True)
class ComputeConfig:
    """What is built and timed.

    Attributes:
        layer: the sparse layer whose number of experts varies, its experts per token kept.
        experts: numbers of experts; dense: those for which a dense layer as large as all experts together is timed too.
        low, high: the two whose ratio is reported.
        tokens: of a forward; repeats: turns, in which all layers run on the same tokens; threads; seed.
    """

    layer: SparseMoEConfig = EMBEDDED
    experts: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    dense: tuple[int, ...] = (4, 8, 16)
    low: int = 8
    high: int = 64
    tokens: int = 4096
    repeats: int = 11
    threads: int = 2
    seed: int = 0


class ComputeGrowth(NamedTuple):
    """A row per layer, and from `low` to `high` experts the ratios of parameters, FLOPs and measured time, whose
    interval is a bootstrap over turns (`n`) of their median."""

    table: pd.DataFrame
    parameters: float
    flops: float
    time: Evidence


def compute_growth(config: ComputeConfig = ComputeConfig()) -> ComputeGrowth:
    """Build the layers, count them, and time their forwards in turns.

    `table` has `kind` (`sparse`, `dense`), `experts`, `parameters`, `flops` (of a token's forward) and `seconds`
    (median).

    Raises:
        ValueError: `low` or `high` are not among `experts`; LayerError: fewer experts than slots.
    """
    if not {config.low, config.high} <= set(config.experts):
        raise ValueError(f"{config.low} and {config.high} experts are compared: both have to be timed")
    torch.manual_seed(config.seed)
    layers: dict[tuple[str, int], SparseMoEConfig | DenseConfig] = {
        ("sparse", n): replace(config.layer, experts=n) for n in config.experts
    }
    layers |= {("dense", n): DenseConfig(config.layer.hidden, n * config.layer.width) for n in config.dense}
    built: dict[str, nn.Module] = {f"{kind} {n}": layer.build() for (kind, n), layer in layers.items()}
    with fixed_threads(config.threads):
        seconds = turns(built, (1, config.tokens, config.layer.hidden), False, config.repeats)
    rows = [
        {
            "kind": kind, "experts": n, "parameters": layer.parameters(), "flops": layer.flops(),
            "seconds": float(np.median(seconds[f"{kind} {n}"])),
        }
        for (kind, n), layer in layers.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    low, high = (
        table[(table["kind"] == "sparse") & (table["experts"] == n)].iloc[0] for n in (config.low, config.high)
    )
    ratios = np.divide(seconds[f"sparse {config.high}"], seconds[f"sparse {config.low}"])
    ratio_of = {name: float(high[name] / low[name]) for name in ("parameters", "flops")}
    return ComputeGrowth(table, ratio_of["parameters"], ratio_of["flops"], _median(ratios, config.seed))


def _median(values: np.ndarray, seed: int) -> Evidence:
    found = bootstrap((values,), np.median, n_resamples=2000, method="percentile", rng=seed).confidence_interval
    return Evidence(float(np.median(values)), float(found.low), float(found.high), len(values))
