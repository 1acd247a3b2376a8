"""What each document asks of each expert, in one pass over its text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measure.documents import Documents
from ...measure.importance import slot_sums
from ...models.passes import encode, padded_batches, padding_token, room
from ...trace import InterventionError, Site, attach, slot_outputs
from ...trace.contributions import ExpertsInput
from ...trace.records import Record
from ...trace.restart import one_position
from .domain_text import Piece

Key = tuple[str, str, str]


@dataclass(frozen=True, eq=False)
class Routed:
    """Routing of documents, summed over their tokens; see `Documents`.

    Attributes:
        keys: domain, language and document of each row.
        tokens: `(document,)`, a router's several rows a token counting each.
        sums: `(document, layer, expert)` by name: `selections` and `weight`; `activity` and `peak` where single
            contributions can be read.
        layers: the model's index of each layer.
    """

    keys: tuple[Key, ...]
    tokens: np.ndarray
    sums: dict[str, np.ndarray] = field(repr=False)
    layers: tuple[int, ...]

    def rows(self, lang: str) -> np.ndarray:
        """Rows of a language."""
        return np.array([i for i, key in enumerate(self.keys) if key[1] == lang], dtype=int)

    def documents(self, rows: Sequence[int] | np.ndarray) -> Documents:
        """The rows as documents with domains.

        Raises:
            ValueError: they are of fewer than two domains.
        """
        at = np.asarray(rows, dtype=int)
        domain = np.array([self.keys[i][0] for i in at])
        own = {name: values[at] for name, values in self.sums.items()}
        return Documents(domain, self.tokens[at], **own, layers=self.layers)


@torch.no_grad()
def route(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece], contributions: bool = True
) -> Routed:
    """Pass every piece through the model, cut to 256 tokens or to the positions that it has, and sum what each document
    asks of the experts.

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
    sequences = encode(tokenizer, [p.text for p in pieces], room(model))
    lean = one_position(model)
    with attach(model) as trace, _inputs(trace.sites, contributions) as inputs:
        sums = _Sums(trace.sites, len(keys), bool(inputs))
        for batch, ids, mask in padded_batches(model, sequences, padding_token(tokenizer)):
            trace.records.clear()
            model(input_ids=ids, attention_mask=mask, use_cache=False, **lean)
            inner = mask.clone()
            inner[:, 0] = 0
            rows = torch.where(inner.bool(), torch.from_numpy(owner[batch]).to(mask.device)[:, None], -1)
            sums.add(trace.records[0], inputs, rows.reshape(-1))
    return Routed(keys, sums.tokens, sums.values, tuple(site.layer for site in trace.sites))


@contextmanager
def _inputs(sites: Sequence[Site], wanted: bool) -> Iterator[dict[int, ExpertsInput]]:
    """What the experts of each layer receive; empty where they cannot be called one by one."""
    hooks: dict[int, ExpertsInput] = {}
    try:
        if wanted:
            for site in sites:
                hooks[site.layer] = ExpertsInput(site)
    except InterventionError:
        _remove(hooks)
    try:
        yield hooks
    finally:
        _remove(hooks)


def _remove(hooks: dict[int, ExpertsInput]) -> None:
    for hook in hooks.values():
        hook.remove()
    hooks.clear()


class _Sums:
    """Sums over documents, filled batch by batch."""

    def __init__(self, sites: Sequence[Site], documents: int, contributions: bool) -> None:
        self.sites, self.documents = sites, documents
        self.experts = max(site.num_experts for site in sites)
        names = ("selections", "weight", *(("activity", "peak") if contributions else ()))
        self.values = {name: np.zeros((documents, len(sites), self.experts)) for name in names}
        self.tokens = np.zeros(documents, dtype=np.int64)

    def add(self, record: Record, inputs: dict[int, ExpertsInput], rows: torch.Tensor) -> None:
        """Count a pass; `rows` is the document of each token, -1 for what is not counted."""
        for at, site in enumerate(self.sites):
            each = site.rows(rows).cpu().numpy()
            kept = each >= 0
            if at == 0:
                self.tokens += np.bincount(each[kept], minlength=self.documents)
            routing = record.layers[site.layer]
            slots = routing.index.shape[-1]
            index = routing.index.reshape(-1, slots).numpy()[kept]
            index = np.where(index < site.num_experts, index, -1)  # classes that compute nothing
            weight = routing.weight.reshape(-1, slots).numpy()[kept]
            self._sum("selections", at, index, each[kept])
            self._sum("weight", at, index, each[kept], weight)
            if inputs:
                seen = inputs[site.layer]
                outputs = slot_outputs(site, seen.hidden, seen.index).float()
                size = (outputs.norm(dim=-1) * seen.weight.float().abs()).cpu().numpy()[kept]
                self._sum("activity", at, index, each[kept], size)
                self._largest(at, index, each[kept], outputs.abs().amax(-1).cpu().numpy()[kept])

    def _sum(self, name: str, at: int, index: np.ndarray, row: np.ndarray, values: np.ndarray | None = None) -> None:
        self.values[name][:, at] += slot_sums(index, row, self.documents, self.experts, values)

    def _largest(self, at: int, index: np.ndarray, row: np.ndarray, values: np.ndarray) -> None:
        filled = index >= 0
        where = np.broadcast_to(row[:, None], index.shape)[filled], index[filled]
        np.maximum.at(self.values["peak"][:, at], where, values[filled])
