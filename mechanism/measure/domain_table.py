"""Every measure of specialisation in one table over experts and domains."""

from collections.abc import Callable

import numpy as np
import xarray as xr

from . import relevance, specialisation
from .documents import Documents, Domains

Metric = Callable[[Domains], np.ndarray]

COUNTED: tuple[Metric, ...] = (
    specialisation.activation_rate,
    specialisation.activation_share,
    specialisation.activation_entropy,
    specialisation.certainty,
    specialisation.cwas,
    specialisation.lift,
    specialisation.information,
    specialisation.mutual_information,
    relevance.token_ratio,
)
WEIGHED: tuple[tuple[str, Metric], ...] = (
    ("weight", relevance.gate_score),
    ("activity", relevance.expert_activity),
    ("peak", relevance.peak),
)


def domain_table(documents: Documents) -> xr.Dataset:
    """The measures that the documents' records allow, over `(layer, expert, domain)`, those of the expert alone over
    `(layer, expert)`, by the names of their functions.

    `unused` marks experts that nothing selected; `tokens` and `documents` count each domain. `.to_dataframe()` makes it
    a tidy table, one row for each cell.
    """
    domains = Domains(documents)
    known = [*COUNTED, *(metric for needed, metric in WEIGHED if getattr(documents, needed) is not None)]
    data = {metric.__name__: labelled(documents, metric(domains)) for metric in known}
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
