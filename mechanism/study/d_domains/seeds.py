"""Models of the same training that differ in their seed, and what is recorded of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from ...models.load import resolve
from ..base import runs as training_runs
from ..base.records import CONFIG, recorded

SEEDS = ("embedded", "seed1", "seed2")
"""A model of each training seed; the first one has read more than the others."""


def other_seeds(spec: str) -> list[str]:
    """Names of the models of the other training seeds."""
    return [name for name in SEEDS if name != Path(resolve(spec)).name]


def recorded_of(spec: str, key: Mapping[str, Any], data: str) -> dict[str, xr.Dataset]:
    """By name, what is recorded of models of other training seeds under the same key and texts.

    Args:
        key: of the model's own record, its hash under `model`; data: hash of the texts.
    """
    found = {}
    for path in sorted(training_runs.RUNS.glob(f"*/{CONFIG}")):
        payload = json.loads(path.read_text("utf-8"))
        if payload.get("study") == key["study"] and payload.get("model", key["model"]) != key["model"]:
            kept = recorded({**key, "model": payload["model"]}, data)
            if kept is not None and kept.attrs.get("name") in other_seeds(spec):
                found[str(kept.attrs["name"])] = kept
    return found
