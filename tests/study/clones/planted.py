"""Records of a grid of clone languages that nobody trained: what each model does is set by hand."""

import json
from typing import Any

import numpy as np
import xarray as xr
import yaml

from mechanism.measure.profile import depth_windows
from mechanism.study.clones.grid import PROBES, SEGMENTS, CloneGrid, CloneRun
from mechanism.study.grid.run import RESULT
from mechanism.study.grids import load_grid

LAYERS, DOCUMENTS, CLONES, EXPERTS = 6, 20, 6, 8
PLAN: dict[str, Any] = {
    "made_by": "clones.grid",
    "model": {"vocab": 16384, "hidden": 16, "layers": LAYERS, "heads": 1, "head_dim": 16, "context": 128,
              "experts": EXPERTS, "top_k": 2, "expert_width": 8},
    "train": {"tokens": 512, "batch": 4, "length": 32, "lr": 0.01, "warmup": 1, "compile": False, "probes": [256]},
    "clones": {"shares": [1, 1, 0.5, 0.25, 0.1, 0.05, 0.001, 0], "bilingual": 0.3, "shared": 0.0},
    "held": {"segments": 3, "shortest": 24, "longest": 40},
    "seeds": 3,
    "cells": {"base": {}, "no bilingual": {"clones": {"bilingual": 0.0}}, "dense": {"model": {"experts": 0}},
              "6 layers": {"train": {"lr": 0.02}, "seeds": 1}},
    "rules": {},
}  # fmt: skip


def planned(folder: Any) -> CloneGrid:
    """The grid, in a file of the folder, without any run."""
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump(PLAN, sort_keys=False))
    return load_grid(str(path))


def plant(
    run: CloneRun, depth: float, linked: float = 0.0, apart: float = 0.0, states: tuple = (0.1, 0.6, 0.3)
) -> None:
    """The record of a run.

    Args:
        depth: share by which divergence is lower in the middle; linked: how much it grows with a clone's loss.
        apart: share by which that of the unread clone lies above the others'; states: retrieval at the start, in the
            middle and at the end.
    """
    rng = np.random.default_rng(run.train.seed)
    names, segments = list(run.clones.names), 2 * DOCUMENTS
    loss = np.array([3.0, 3.2, 3.5, 4.0, 4.6, 5.5, 8.7, 9.0])
    middle = depth_windows(LAYERS)["middle"]
    noise = rng.normal(size=(len(names), segments, LAYERS)) * 0.02
    level = 0.5 + linked * (loss - 3) / 10 + rng.normal(size=len(names)) * 0.002
    level[-1] = level[1:6].mean() * (1 + apart)
    profile = np.where(middle, 1 - depth, 1.0)
    divergence = np.clip(level[:, None, None] * profile + noise, 0, 1)
    divergence[0] = 0
    each = ("lang", "segment", "layer")
    hits = rng.random((len(names), segments, LAYERS + 1))
    start, inside, end = states
    rate = np.array([start, *np.where(middle, inside, end)])
    read = np.maximum(np.array(run.clones.shares) * 1e6, 1)
    data: dict[str, tuple] = {
        "nll": (("lang", "segment"), loss[:, None] + rng.normal(size=(len(names), segments)) * 0.05),
        "hits": (("lang", "segment", "state"), (hits < rate).astype(np.float32)),
        "distance": (("lang", "state"), rng.uniform(0.1, 0.3, (len(names), LAYERS + 1))),
    }
    if run.cell != "dense":
        falling = (
            np.linspace(1.9, 1.0, LAYERS) * (1 - 0.03 * (np.arange(len(names)) > 0) * np.arange(LAYERS)[:, None]).T
        )
        data |= {
            "divergence": (each, divergence),
            "shuffled": (each, np.clip(level[:, None, None] + noise, 0, 1)),
            "entropy": (each, np.broadcast_to(falling[:, None], divergence.shape) + noise),
            "selections": (("lang", "layer", "expert"), np.ones((len(names), LAYERS, EXPERTS))),
            "consistency": (each, 0.5 - 0.02 * np.log(read)[:, None, None] + noise / 10),
        }
    found = xr.Dataset(data, {"lang": names, "document": ("segment", np.arange(segments) // 2)})
    run.record.mkdir(parents=True)
    found.to_netcdf(run.record / SEGMENTS)
    means = found.drop_vars("document").mean("segment")
    xr.concat([means.assign_coords(tokens_seen=t) for t in (0, 256, 512)], "tokens_seen").to_netcdf(run.record / PROBES)
    result = {
        "loss": dict(zip(names, loss.tolist(), strict=True)),
        "read": dict(zip(names, read.tolist(), strict=True)),
    }
    (run.record / RESULT).write_text(json.dumps({**result, "step_seconds": 1.0}))
