"""What each document asks of each expert, in one pass over its text."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measure.documents import Documents
from ...measure.importance import slot_sums
from ...models.passes import RoutedPass, encode, padding_token, room, routed_passes
from ...trace import InterventionError, Site, find_sites, slot_outputs
from ...trace.contributions import ExpertsInput
from .domain_text import Piece

SUMS = ("selections", "weight", "activity", "peak")


def documents(found: xr.Dataset) -> Documents:
    """What `route` gave, or a record of it, as documents with domains.

    Raises:
        ValueError: they are of fewer than two domains.
    """
    sums = {name: found[name].values.astype(np.float64) for name in SUMS if name in found}
    layers = tuple(found["layer"].values.tolist())
    return Documents(found["domain"].values.astype(str), found["tokens"].values, **sums, layers=layers)


@torch.no_grad()
def route(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece], contributions: bool = True
) -> xr.Dataset:
    """Pass every piece through the model, cut to 256 tokens or to the positions that it has, and sum what each document
    asks of the experts: `(document, layer, expert)` by name, `selections` and `weight`, `activity` and `peak` where
    single contributions can be read, see `Documents`; `tokens`, a router's several rows a token counting each; and
    each document's `domain`, `lang` and `name`.

    Args:
        contributions: run every selected expert alone as well, for `activity` and `peak`; left out for families whose
            experts cannot be called one by one.

    Raises:
        ValueError: no pieces; DenseModelError: a dense model.
    """
    if not pieces:
        raise ValueError("no text to pass through the model")
    keys = tuple(dict.fromkeys((p.domain, p.lang, p.document) for p in pieces))
    number = {key: i for i, key in enumerate(keys)}
    owner = np.array([number[p.domain, p.lang, p.document] for p in pieces])
    ids, sites = encode(tokenizer, [p.text for p in pieces], room(model)), find_sites(model)
    shape = (len(keys), len(sites), max(site.num_experts for site in sites))
    tokens = np.zeros(len(keys), dtype=np.int64)
    with _inputs(sites, contributions) as inputs:
        names = ("selections", "weight", *(("activity", "peak") if inputs else ()))
        sums = {name: np.zeros(shape) for name in names}
        for one in routed_passes(model, ids, padding_token(tokenizer), logits=False):
            own = owner[one.sequence]
            tokens += np.bincount(own, minlength=len(keys)) * sites[0].heads
            for at, site in enumerate(sites):
                _add({name: values[:, at] for name, values in sums.items()}, one, site, own, inputs.get(site.layer))
    data: dict[str, Any] = {name: (("document", "layer", "expert"), values) for name, values in sums.items()}
    labels = {name: ("document", [key[i] for key in keys]) for i, name in enumerate(("domain", "lang", "name"))}
    layers = [site.layer for site in sites]
    return xr.Dataset({**data, "tokens": ("document", tokens)}, {**labels, "layer": layers})


def _add(sums: dict[str, np.ndarray], one: RoutedPass, site: Site, own: np.ndarray, seen: ExpertsInput | None) -> None:
    """Count a pass in one layer; `own` is the document of each text token."""
    index = one.experts(site)
    slots: dict[str, np.ndarray | None] = {"selections": None, "weight": one.weights(site)}
    if seen is not None:
        outputs = slot_outputs(site, seen.hidden, seen.index).float()
        slots["activity"] = one.of_text(outputs.norm(dim=-1) * seen.weight.float().abs())
        filled = index >= 0
        where = np.broadcast_to(own[:, None], index.shape)[filled], index[filled]
        np.maximum.at(sums["peak"], where, one.of_text(outputs.abs().amax(-1))[filled])
    for name, values in slots.items():
        documents, experts = sums[name].shape
        sums[name] += slot_sums(index, own, documents, experts, values)


@contextmanager
def _inputs(sites: Sequence[Site], wanted: bool) -> Iterator[dict[int, ExpertsInput]]:
    """What the experts of each layer receive; empty where they cannot be called one by one."""
    with ExitStack() as hooks:
        found: dict[int, ExpertsInput] = {}
        try:
            for site in sites if wanted else ():
                found[site.layer] = ExpertsInput(site)
                hooks.callback(found[site.layer].remove)
        except InterventionError:
            hooks.close()
            found = {}
        yield found
