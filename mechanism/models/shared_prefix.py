"""Passes over choice items in which choices share their context, and edits what lies below them."""

import copy
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from ..trace.restart import layer_outputs, restarted
from .passes import pad, pad_left

SOFTMAX_ROWS = 256  # positions at a time: copies of a whole batch's logits do not fit a processor's caches


@dataclass
class ChoiceBatch:
    """Contexts, padded on the left, and below each the different beginnings of its choices (all tokens but the last).

    Attributes:
        ids, mask: `(context, pos)`.
        owner, tail, tail_mask: context of each beginning `(row,)`, and its ids `(row, pos)`.
        first: `(context, choice)` first tokens; later: choice, scored position and token of all the others.
    """

    ids: Tensor
    mask: Tensor
    owner: Tensor
    tail: Tensor
    tail_mask: Tensor
    first: Tensor
    later: Tensor

    @classmethod
    def of(
        cls, contexts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]], pad_id: int
    ) -> "ChoiceBatch":
        ids, mask = pad_left(contexts, pad_id)
        rows: dict[tuple[int, tuple[int, ...]], int] = {}
        for number, own in enumerate(choices):
            for choice in own:
                if len(choice) > 1:
                    rows.setdefault((number, tuple(choice[:-1])), len(rows))
        starts = np.cumsum([0, *(len(beginning) for _, beginning in rows)])
        later = [
            (number * len(own) + c, starts[rows[number, tuple(choice[:-1])]] + at, token)
            for number, own in enumerate(choices)
            for c, choice in enumerate(own)
            for at, token in enumerate(choice[1:])
        ]
        tail, tail_mask = pad([beginning for _, beginning in rows], pad_id) if rows else (ids[:0], mask[:0])
        owner = torch.tensor([number for number, _ in rows], dtype=torch.long)
        first = torch.tensor([[choice[0] for choice in own] for own in choices])
        return cls(ids, mask, owner, tail, tail_mask, first, torch.tensor(later, dtype=torch.long).view(-1, 3))

    def to(self, device: torch.device) -> "ChoiceBatch":
        return ChoiceBatch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass
class Below:
    """What the passes of a batch left for edits: outputs of layers in both passes, and the cache between them."""

    context: dict[int, Any] = field(default_factory=dict)
    tail: dict[int, Any] = field(default_factory=dict)
    cache: list[Any] = field(default_factory=list)


class SharedPasses:
    """The two passes over a batch: contexts, then the beginnings of their choices on the cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.positions = "position_ids" in inspect.signature(model.forward).parameters

    def plain(self, batch: ChoiceBatch, starts: Iterable[int]) -> tuple[Tensor, Below]:
        """Log-probabilities `(context, choice)` of the model as it is, and what edits from these layers on need."""
        below = Below()
        with layer_outputs(self.model, {start - 1 for start in starts if start}) as outputs:
            first, cache = self._contexts(batch)
            below.context, below.cache = dict(outputs), [copy.copy(layer) for layer in cache.layers]
            later = self._tails(batch, cache)
            below.tail = dict(outputs)
        return _totals(batch, first, later), below

    def edited(self, batch: ChoiceBatch, start: int, below: Below) -> Tensor:
        """The same inside an attached trace whose first edit lies in layer `start`."""
        with self._restarted(start, below.context):
            first, cache = self._contexts(batch)
        with self._restarted(start, below.tail):
            later = self._tails(batch, cache, below.cache[:start])
        return _totals(batch, first, later)

    def _restarted(self, start: int, outputs: dict[int, Any]) -> Any:
        return restarted(self.model, start, outputs[start - 1]) if start else nullcontext()

    def _contexts(self, batch: ChoiceBatch) -> tuple[Tensor, Any]:
        rows = torch.arange(len(batch.ids), device=batch.ids.device)
        last = torch.full_like(rows, batch.ids.shape[1] - 1)
        return self._pass(batch.ids, batch.mask, (rows, last))

    def _tails(self, batch: ChoiceBatch, cache: Any, skipped: Sequence[Any] = ()) -> Tensor:
        """Log-probabilities `(later,)`; caches of skipped layers only tell their length."""
        if not len(batch.tail):
            return batch.ids.new_zeros(0, dtype=torch.float32)
        cache.reorder_cache(batch.owner)
        cache.layers[: len(skipped)] = skipped
        mask = torch.cat([batch.mask[batch.owner], batch.tail_mask], 1)
        rows, at = batch.tail_mask.nonzero(as_tuple=True)
        logits = self._pass(batch.tail, mask, (rows, at), cache)[0]
        _, position, token = batch.later.unbind(1)
        parts = zip(position.split(SOFTMAX_ROWS), token.split(SOFTMAX_ROWS), strict=True)
        return -torch.cat([F.cross_entropy(logits[at], target, reduction="none") for at, target in parts])

    def _pass(self, ids: Tensor, mask: Tensor, kept: tuple[Tensor, Tensor], cache: Any = None) -> tuple[Tensor, Any]:
        """Logits `(kept, vocabulary)` in float32, and the cache."""
        options: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
        if self.positions:
            options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with head_at(self.model, kept) as narrowed:
            out = self.model(input_ids=ids, attention_mask=mask, use_cache=True, **options)
        logits = out.logits.flatten(0, 1) if narrowed else out.logits[kept]
        return logits.float(), out.past_key_values


@contextmanager
def head_at(model: PreTrainedModel, kept: tuple[Tensor, Tensor]) -> Iterator[list[bool]]:
    """The output layer sees these positions only; the list stays empty where the model has no such layer."""
    narrowed: list[bool] = []
    head = model.get_output_embeddings()
    if head is None:
        yield narrowed
        return

    def narrow(module: Any, args: tuple) -> tuple:
        narrowed.append(True)
        return (args[0][kept].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(narrow)
    try:
        yield narrowed
    finally:
        handle.remove()


def _totals(batch: ChoiceBatch, first: Tensor, later: Tensor) -> Tensor:
    """`(context, choice)` sums over a choice's tokens, from logits of the first and log-probabilities of the others."""
    totals = first.gather(1, batch.first) - first.logsumexp(1, keepdim=True)
    return totals.flatten().index_add(0, batch.later[:, 0], later).view(totals.shape).cpu()
