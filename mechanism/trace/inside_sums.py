"""Statistics of the inside of experts: norms, sparsity and peaks by row, and their sums by expert."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .inner import Parts

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
    return {name: torch.maximum(own, b[name]) if name == "most" else own + b[name] for name, own in a.items()}


def means(own: Mapping[str, Tensor]) -> xr.Dataset:
    """Means and maxima of one layer."""
    count = own["selections"].double()
    count[count == 0] = math.nan
    means, most = dict(zip(VALUES, own["sums"] / count, strict=True)), dict(zip(VALUES, own["most"], strict=True))
    data = {name: most[name] + 0 * count if name.startswith("peak") else mean for name, mean in means.items()}
    data |= {f"{name}_max": most[name] + 0 * count for name in means if name.startswith("norm")}
    data |= {"expert_activity": own["sums"][VALUES.index("norm_contribution")] / own["tokens"]}
    data |= {"selections": own["selections"]}
    shaped: dict[str, Any] = {name: ("expert", values.numpy()) for name, values in data.items()}
    shaped["activity"] = (("expert", "unit"), (own["units"] / count[:, None]).numpy())
    shaped["tokens"] = ((), own["tokens"].numpy())
    return xr.Dataset(
        shaped, {name: np.arange(n) for name, n in zip(("expert", "unit"), own["units"].shape, strict=True)}
    )
