"""Full tensors of recorded passes, and the labelled dataset made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from .errors import CaptureError
from .passes import Pass
from .seam import Routing


@dataclass
class Record:
    """Full tensors of one pass, on the CPU.

    Attributes:
        at: the pass; layers: layer -> `Routing` whose tensors are `(batch, pos, class or slot)`; a router with several
            rows a token has `(batch, pos, head, class or slot)`.
    """

    at: Pass
    layers: dict[int, Routing] = field(default_factory=dict)


def to_dataset(records: Sequence[Record]) -> xr.Dataset:
    """Records as one dataset over `(batch, pos, layer, expert | slot)`; passes follow one another along `pos`. Where a
    router has several rows a token, `head` follows `layer`, and blanks fill the layers with fewer.

    Raises:
        CaptureError: nothing was recorded, or passes have different batch sizes.
    """
    if not records:
        raise CaptureError("nothing was recorded: run the model inside the with block, with keep=True")
    if len({r.at.mask.shape[0] for r in records}) > 1:
        raise CaptureError("the recorded passes have different batch sizes; read them one by one from records")
    return xr.concat([_dataset(r) for r in records], "pos")


def _dataset(record: Record) -> xr.Dataset:
    layers = sorted(record.layers)
    classes = max(r.logits.shape[-1] for r in record.layers.values())
    slots = max(r.index.shape[-1] for r in record.layers.values())
    heads = max((r.logits.shape[2] for r in record.layers.values() if r.logits.ndim == 4), default=0)
    mask = record.at.mask.cpu().numpy() != 0
    pad = ~mask[:, :, None, None]

    def stacked(name: str, width: int, blank: float | int) -> np.ndarray:
        parts = []
        for layer in layers:
            values = getattr(record.layers[layer], name).numpy()
            values = values if values.ndim == 4 else values[:, :, None]
            full = np.full((*values.shape[:2], max(heads, 1), width), blank, dtype=values.dtype)
            full[:, :, : values.shape[2], : values.shape[3]] = values
            parts.append(np.where(pad, np.asarray(blank, dtype=values.dtype), full))
        joined = np.stack(parts, 2)
        return joined if heads else joined[:, :, :, 0]

    axes = ("batch", "pos", "layer", *(("head",) if heads else ()))
    return xr.Dataset(
        {
            "router_logits": ((*axes, "expert"), stacked("logits", classes, np.nan)),
            "expert_index": ((*axes, "slot"), stacked("index", slots, -1)),
            "expert_weight": ((*axes, "slot"), stacked("weight", slots, np.nan)),
            "mask": (axes[:2], mask),
            "phase": ("pos", [record.at.phase] * mask.shape[1]),
        },
        coords={
            "layer": layers, "expert": np.arange(classes), "slot": np.arange(slots),
            **({"head": np.arange(heads)} if heads else {}),
        },
    )  # fmt: skip
