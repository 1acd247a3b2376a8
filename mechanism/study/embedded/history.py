"""Committed run records, as tables."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import entropy

from ..base.runs import records


@dataclass
class History:
    """A run's record: label and content address, totals, configuration, a row per recorded step, and probe statistics
    over `tokens_seen`."""

    name: str
    hash: str
    result: dict
    config: dict
    metrics: pd.DataFrame
    stats: xr.Dataset


def load_history(name: str) -> History:
    """The record of a run by name.

    Raises:
        FileNotFoundError: no record; the message says which command makes it.
    """
    known = records()
    if name not in known:
        raise FileNotFoundError(
            f"no record of run {name!r} (there are {', '.join(known) or 'none'}); "
            f"`mechanism train --config {name}` makes it"
        )
    folder: Path = known[name]
    result = json.loads((folder / "result.json").read_text("utf-8"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    metrics = pd.read_csv(folder / "metrics.csv")
    return History(name, folder.name, result, config, metrics, xr.load_dataset(folder / "stats.nc"))


def smooth_loss(history: History) -> pd.DataFrame:
    """Training loss in nats per token, an exponential moving average with a span of 20 recorded steps."""
    loss = history.metrics["loss"].ewm(span=20).mean()
    return pd.DataFrame({"tokens": history.metrics["tokens"], "loss": loss})


def expert_shares(stats: xr.Dataset, corpus: str, lang: str) -> xr.DataArray:
    """Share of a layer's selections that each expert receives, `(tokens_seen, layer, expert)`; uniform is 1/E."""
    counts = stats["selections"].sel(corpus=corpus, lang=lang)
    return counts / counts.sum("expert")


def effective_experts(shares: xr.DataArray) -> xr.DataArray:
    """Exponential of the entropy of the shares: how many experts are in use, from 1 to E."""
    return np.exp(xr.apply_ufunc(entropy, shares, input_core_dims=[["expert"]], kwargs={"axis": -1}))
