"""Do experts add parameters at constant compute per token? Counted FLOPs and measured time of a layer: claim D8."""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap
from torch import nn

from ...corpus.library import DATA
from ...measure.evidence import Evidence
from ...nn.feedforward import DenseConfig
from ...nn.moe import SparseMoEConfig
from ..base.turns import EMBEDDED, by_case, fixed_threads, turns

RECORD, COMMAND = DATA / "baselines" / "growth.csv", "mechanism bench growth --write"
"""Where the times stand that claim D8 is judged on, and what makes them."""


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


def _layers(config: ComputeConfig) -> dict[str, tuple[str, int, SparseMoEConfig | DenseConfig]]:
    """By name: kind, number of experts, and what is built.

    Raises:
        ValueError: `low` or `high` are not among `experts`.
    """
    if not {config.low, config.high} <= set(config.experts):
        raise ValueError(f"{config.low} and {config.high} experts are compared: both have to be timed")
    sparse = {f"sparse {n}": ("sparse", n, replace(config.layer, experts=n)) for n in config.experts}
    dense = {f"dense {n}": ("dense", n, DenseConfig(config.layer.hidden, n * config.layer.width)) for n in config.dense}
    return {**sparse, **dense}


def time_layers(config: ComputeConfig = ComputeConfig()) -> pd.DataFrame:
    """Build the layers and time their forwards in turns: a row for each turn and layer, `turn`, `case`, `seconds`, and
    `running`, how many other processes had the machine's attention when the turns began (empty where that cannot be
    told).

    Raises:
        ValueError: see `ComputeConfig`; LayerError: fewer experts than slots.
    """
    torch.manual_seed(config.seed)
    others = running()
    built: dict[str, nn.Module] = {name: layer.build() for name, (_, _, layer) in _layers(config).items()}
    with fixed_threads(config.threads):
        seconds = turns(built, (1, config.tokens, config.layer.hidden), False, config.repeats)
    rows = [(turn, case, round(own, 7)) for case, every in seconds.items() for turn, own in enumerate(every)]
    return pd.DataFrame(rows, columns=["turn", "case", "seconds"]).assign(running=others)


def running(folder: Path = Path("/proc")) -> int | None:
    """Other processes that run or wait for a processor now; None where the system does not tell."""
    states = []
    for path in folder.glob("[0-9]*/stat"):
        with suppress(OSError):
            states.append(path.read_text().rpartition(")")[2].split()[0])
    return max(0, states.count("R") - 1) if states else None


def recorded(path: Path = RECORD) -> pd.DataFrame | None:
    """The recorded times, None where there are none."""
    return pd.read_csv(path) if path.exists() else None


def compute_growth(times: pd.DataFrame, config: ComputeConfig = ComputeConfig()) -> ComputeGrowth:
    """Count the layers, and hold it beside their times.

    `table` has `kind` (`sparse`, `dense`), `experts`, `parameters`, `flops` (of a token's forward) and `seconds`
    (median).

    Args:
        times: of `time_layers` with the same configuration.

    Raises:
        ValueError: see `ComputeConfig`; a layer that was not timed.
    """
    seconds, layers = by_case(times), _layers(config)
    if missing := [name for name in layers if name not in seconds]:
        raise ValueError(f"the layer {missing[0]!r} was not timed: make the record again")
    table = pd.DataFrame([
        {
            "kind": kind, "experts": n, "parameters": layer.parameters(), "flops": layer.flops(),
            "seconds": float(np.median(seconds[name])),
        }
        for name, (kind, n, layer) in layers.items()
    ])  # fmt: skip
    counts = table[table["kind"] == "sparse"].set_index("experts")[["parameters", "flops"]]
    ratios = np.divide(seconds[f"sparse {config.high}"], seconds[f"sparse {config.low}"])
    found = bootstrap((ratios,), np.median, n_resamples=2000, method="percentile", rng=config.seed).confidence_interval
    time = Evidence(float(np.median(ratios)), float(found.low), float(found.high), len(ratios))
    grown = counts.loc[config.high] / counts.loc[config.low]
    return ComputeGrowth(table, float(grown["parameters"]), float(grown["flops"]), time)
