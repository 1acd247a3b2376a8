"""What is kept of the inside of experts: norms, sparsity and peaks by row, their sums by expert, and chosen tokens."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .inner import Parts, Received
from .sites import Site

PARTS = ("gate", "up", "activation", "output", "contribution")
VALUES = (*(f"norm_{part}" for part in PARTS), "sparsity", "hoyer", "peak_activation", "peak_output")


def measured(parts: Parts, contribution: Tensor, threshold: float) -> Tensor:
    """`VALUES` of one expert on rows: `(value, row)`; NaN for a gate that is not there."""
    gate, up, activation, output = (None if part is None else part.float() for part in parts)
    none = torch.full_like(contribution[:, 0], math.nan)
    norms = [none if p is None else p.norm(dim=-1) for p in (gate, up, activation, output, contribution)]
    assert activation is not None
    assert output is not None
    size, root = activation.abs(), activation.shape[-1] ** 0.5
    peak = size.amax(-1)
    silent = (size <= threshold * peak[:, None]).float().mean(-1)
    hoyer = torch.where(peak > 0, (root - size.sum(-1) / norms[2]) / (root - 1), 1.0)
    return torch.stack([*norms, silent, hoyer, peak, output.abs().amax(-1)])


def summed(index: Tensor, table: Tensor, units: Mapping[int, Tensor], experts: int) -> dict[str, Tensor]:
    """Sums, and largest, of `VALUES` by expert, from `(token, slot)` selected classes and `(value, token * slot)`."""
    flat = index.reshape(-1).long()
    flat, table = flat[flat < experts], table[:, flat < experts]
    empty = torch.zeros(len(VALUES), experts, dtype=torch.float64)
    width = max((len(own) for own in units.values()), default=1)
    sizes = torch.zeros(experts, width, dtype=torch.float64)
    if units:
        sizes[list(units)] = torch.stack(list(units.values())).cpu()
    return {
        "sums": empty.index_add(1, flat, table),
        "most": empty.scatter_reduce(1, flat.expand_as(table), table, "amax"),
        "selections": flat.bincount(minlength=experts),
        "units": sizes,
        "tokens": torch.tensor(len(index)),
    }


def added(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `summed` gives of the tokens of both."""
    return {name: torch.maximum(own, b[name]) if name == "most" else own + b[name] for name, own in a.items()}


def means(own: Mapping[str, Tensor]) -> xr.Dataset:
    """Means and maxima of one layer."""
    count = own["selections"].double()
    count[count == 0] = math.nan
    mean, most = (dict(zip(VALUES, values, strict=True)) for values in (own["sums"] / count, own["most"] + 0 * count))
    data = {name: (most if name.startswith("peak") else mean)[name] for name in VALUES}
    data |= {f"{name}_max": most[name] for name in VALUES if name.startswith("norm")}
    data |= {"expert_activity": own["sums"][VALUES.index("norm_contribution")] / own["tokens"]}
    data |= {"selections": own["selections"]}
    shaped: dict[str, Any] = {name: ("expert", values.numpy()) for name, values in data.items()}
    shaped["activity"] = (("expert", "unit"), (own["units"] / count[:, None]).numpy())
    shaped["tokens"] = ((), own["tokens"].numpy())
    return xr.Dataset(
        shaped, {name: np.arange(n) for name, n in zip(("expert", "unit"), own["units"].shape, strict=True)}
    )


class Full:
    """Chosen tokens of a layer in one pass, filled expert by expert.

    Args:
        chosen: `(token,)` bool, on the CPU.
    """

    def __init__(self, seen: Received, chosen: Tensor) -> None:
        self.seen, self.chosen = seen, chosen
        self.place = torch.where(chosen, chosen.cumsum(0) - 1, -1)
        self.arrays: dict[str, Tensor] = {}

    def add(self, at: Tensor, parts: Parts | None, contribution: Tensor) -> None:
        """Keep what slots of one expert hold of the chosen tokens."""
        where = at.cpu()
        token, slot = self.place[where // self.seen.slots], where % self.seen.slots
        kept = token >= 0
        for name, values in zip(PARTS, (*(parts or [None] * 4), contribution), strict=True):
            if values is not None and bool(kept.any()):
                shape = (int(self.chosen.sum()), self.seen.slots, values.shape[-1])
                array = self.arrays.setdefault(name, torch.full(shape, math.nan))
                array[token[kept], slot[kept]] = values[kept.to(values.device)].float().cpu()

    def dataset(self, site: Site, named: Mapping[str, Tensor], phase: str) -> xr.Dataset:
        """All of it, with what names the tokens: `(token,)` values that each head of a token shares."""
        data: dict[str, Any] = {
            name: (("token", "slot", "unit" if name in PARTS[:3] else "d"), values.numpy())
            for name, values in self.arrays.items()
        }
        for name, values in (("expert", self.seen.index), ("weight", self.seen.weight.float())):
            data[name] = (("token", "slot"), values.cpu()[self.chosen].numpy())
        coords = {name: ("token", site.rows(values).numpy()) for name, values in named.items()}
        coords["phase"] = ("token", np.full(int(self.chosen.sum()), phase))
        if site.heads > 1:
            coords["head"] = ("token", np.arange(int(self.chosen.sum())) % site.heads)
        return xr.Dataset(data, coords)
