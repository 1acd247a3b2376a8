"""Every measure of specialisation in one table over experts and domains."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import xarray as xr

from . import relevance, specialisation
from .documents import Documents, Domains

Metric = Callable[[Domains], np.ndarray]

COUNTED: Mapping[str, Metric] = MappingProxyType({
    "activation_rate": specialisation.activation_rate,
    "activation_share": specialisation.activation_share,
    "activation_entropy": specialisation.activation_entropy,
    "certainty": specialisation.certainty,
    "cwas": specialisation.cwas,
    "lift": specialisation.lift,
    "information": specialisation.information,
    "mutual_information": specialisation.mutual_information,
    "token_ratio": relevance.token_ratio,
})  # fmt: skip
WEIGHED: Mapping[str, tuple[str, Metric]] = MappingProxyType({
    "gate_score": ("weight", relevance.gate_score),
    "expert_activity": ("activity", relevance.expert_activity),
    "peak": ("peak", relevance.peak),
})  # fmt: skip


def known_metrics(documents: Documents) -> dict[str, Metric]:
    """The measures by name that these documents' records allow."""
    return dict(COUNTED) | {n: m for n, (needs, m) in WEIGHED.items() if getattr(documents, needs) is not None}


def domain_table(documents: Documents, metrics: Mapping[str, Metric] | None = None) -> xr.Dataset:
    """Measures over `(layer, expert, domain)`, those of the expert alone over `(layer, expert)`.

    `unused` marks experts that nothing selected; `tokens` and `documents` count each domain. `.to_dataframe()` makes it
    a tidy table, one row for each cell.

    Args:
        metrics: by name; `known_metrics` without it.

    Raises:
        ValueError: a measure needs what was not recorded.
    """
    domains = Domains(documents)
    chosen = known_metrics(documents) if metrics is None else metrics
    data = {name: labelled(documents, metric(domains)) for name, metric in chosen.items()}
    data["unused"] = labelled(documents, domains.total("selections").sum(-1) == 0)
    return xr.Dataset(data).assign(
        tokens=("domain", domains.tokens), documents=("domain", domains.multiplicity.sum(1).astype(np.int64))
    )


def labelled(documents: Documents, values: np.ndarray) -> xr.DataArray:
    """Values `(layer, expert)` or `(layer, expert, domain)` with the documents' labels."""
    layers, experts = documents.selections.shape[1:]
    coords = {"layer": list(documents.layers) or np.arange(layers), "expert": np.arange(experts)}
    if values.ndim == 3:
        coords["domain"] = documents.names
    return xr.DataArray(values, coords, tuple(coords))
