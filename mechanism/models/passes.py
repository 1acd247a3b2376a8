"""One forward pass over segments, reduced per segment to what the studies need."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..measure.consistency import Consistency, selected
from ..trace import DenseModelError, attach
from ..trace.records import Record
from .load import ModelError

MAX_TOKENS = 256


def _nothing() -> np.ndarray:
    return np.empty((0, 0, 0))


@dataclass
class SegmentPass:
    """Per-segment results; a segment's tokens exclude the one that opens it.

    Attributes:
        nll: `(segment,)` total negative log-likelihood in nats.
        tokens: `(segment,)` number of tokens.
        hidden: `(segment, layer + 1, d)` mean hidden state, embedding first; empty if not asked for.
        importance: `(segment, layer, expert)` mean full-softmax router probability (arXiv 2510.04694, eq. 1);
            empty for a dense model.
        selections: `(segment, layer, expert)` top-k counts; empty for a dense model.
        consistency: `(segment, layer)` mean Jaccard similarity of the top-k sets of all pairs of tokens, NaN below two
            tokens; empty if not asked for.
        bytes: `(segment,)` UTF-8 bytes of the texts.
        layers: decoder layers that route.
    """

    nll: np.ndarray
    tokens: np.ndarray
    hidden: np.ndarray = field(default_factory=_nothing)
    importance: np.ndarray = field(default_factory=_nothing)
    selections: np.ndarray = field(default_factory=_nothing)
    consistency: np.ndarray = field(default_factory=_nothing)
    bytes: np.ndarray = field(default_factory=_nothing)
    layers: tuple[int, ...] = ()


def opening_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that opens a sequence: beginning-of-text, or end-of-text where a tokenizer has no such token.

    Raises:
        ModelError: it has neither.
    """
    found = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if found is None:
        raise ModelError("the tokenizer has no token to open a text with: set its bos_token or its eos_token")
    return int(found)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> list[list[int]]:
    """Token ids of each text behind the token that opens it, cut to `max_tokens`."""
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    opening = opening_token(tokenizer)
    return [[opening, *i][: max_tokens + 1] for i in ids]


def room(model: PreTrainedModel) -> int:
    """Tokens of a text that are read: 256, or what the model has positions for beside the opening token."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(MAX_TOKENS, positions - 1) if positions else MAX_TOKENS


def batches_by_length(sequences: Sequence[Sequence[int]], max_batch_tokens: int = 4096) -> list[list[int]]:
    """Index batches of similar length, so that little is padded."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    batches: list[list[int]] = [[]]
    for i in order:
        if batches[-1] and (len(batches[-1]) + 1) * len(sequences[i]) > max_batch_tokens:
            batches.append([])
        batches[-1].append(i)
    return [batch for batch in batches if batch]


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and their attention mask, both `(batch, pos)`."""
    width = max(map(len, sequences))
    ids = torch.tensor([[*s, *[pad_id] * (width - len(s))] for s in sequences])
    mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences])
    return ids, mask


def padded_batches(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], padding: int, batch_tokens: int = 4096
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Numbers of sequences of similar length, shortest first, with their tokens and mask `(batch, pos)` on the model's
    device."""
    for batch in batches_by_length(ids, batch_tokens):
        tokens, mask = pad([ids[i] for i in batch], padding)
        yield batch, tokens.to(model.device), mask.to(model.device)


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token to pad with; it is masked, so any will do."""
    own = tokenizer.pad_token_id
    return tokenizer.eos_token_id if own is None else own


def next_token_nll(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood `(batch, pos - 1)` of each token but the first, in nats, float32."""
    scores = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return scores.view(ids.shape[0], -1)


@torch.no_grad()
def segment_pass(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    hidden: bool = True,
    consistency: bool = False,
    cut: Sequence[int] | np.ndarray | None = None,
) -> SegmentPass:
    """Run every text alone through the model.

    Args:
        hidden: mean hidden states; consistency: of top-k sets.
        cut: of each text, how many of its first tokens consistency counts; all without it.
    """
    sequences = encode(tokenizer, texts, room(model))
    counted = np.asarray([len(s) - 1 for s in sequences] if cut is None else cut)
    layers: tuple[int, ...] = ()
    rows: dict[int, dict[str, np.ndarray]] = {}
    with watched(model) as records:
        for batch, ids, mask in padded_batches(model, sequences, padding_token(tokenizer)):
            records.clear()
            out = model(input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=hidden)
            states = torch.stack(out.hidden_states, 2) if hidden else None
            reduced = _reduce(out.logits, ids, mask, states) | _reduce_routing(records, mask.cpu())
            if records:
                layers = tuple(sorted(records[0].layers))
            if records and consistency:
                reduced["consistency"] = _consistency(records[0], mask.cpu(), counted[batch])
            for row, i in enumerate(batch):
                rows[i] = {key: value[row] for key, value in reduced.items()}
    stacked = {key: np.stack([rows[i][key] for i in range(len(texts))]) for key in rows[0]}
    return SegmentPass(**stacked, bytes=np.array([len(text.encode()) for text in texts]), layers=layers)


@contextmanager
def watched(model: PreTrainedModel) -> Iterator[list[Record]]:
    """Records of the model's passes inside the block; none of a dense model's."""
    try:
        trace = attach(model)
    except DenseModelError:
        yield []
    else:
        with trace:
            yield trace.records


def _inner(mask: torch.Tensor) -> torch.Tensor:
    """Real tokens without the one that opens the sequence."""
    inner = mask.clone()
    inner[:, 0] = 0
    return inner


def _reduce(
    logits: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, states: torch.Tensor | None
) -> dict[str, np.ndarray]:
    """Sums and means over the inner tokens of each sequence."""
    inner = _inner(mask)
    count = inner.sum(1)
    nll = next_token_nll(logits, ids)
    found = {"nll": (nll * mask[:, 1:]).sum(1), "tokens": count}
    if states is not None:
        found["hidden"] = torch.einsum("bpld,bp->bld", states.float(), inner.float()) / count[:, None, None]
    return {key: value.cpu().numpy() for key, value in found.items()}


def _reduce_routing(records: Sequence[Record], mask: torch.Tensor) -> dict[str, np.ndarray]:
    """Importance and selections of each sequence over its inner tokens."""
    if not records:
        return {}
    inner = _inner(mask).float()
    routed = [records[0].layers[layer] for layer in sorted(records[0].layers)]
    # A router with several rows a token (heads): the mean of their probabilities, the sum of their selections.
    probs = torch.stack([r.logits.softmax(-1).unsqueeze(2).flatten(2, -2).mean(2) for r in routed], 2)
    chosen = torch.stack([F.one_hot(r.index, probs.shape[-1]).flatten(2, -2).sum(2) for r in routed], 2).float()
    importance = torch.einsum("bple,bp->ble", probs, inner) / inner.sum(1)[:, None, None]
    return {"importance": importance.numpy(), "selections": torch.einsum("bple,bp->ble", chosen, inner).numpy()}


def _consistency(record: Record, mask: torch.Tensor, counted: np.ndarray) -> np.ndarray:
    """`(batch, layer)` consistency over so many first inner tokens of each sequence."""
    inner = _inner(mask).bool().numpy() & (np.arange(mask.shape[1]) <= counted[:, None])
    measure = Consistency()
    index = np.stack([record.layers[layer].index.numpy() for layer in sorted(record.layers)], 1)
    experts = max(r.logits.shape[-1] for r in record.layers.values())
    rows = []
    for own, kept in zip(index, inner, strict=True):
        if kept.sum() < 2:
            rows.append(np.full(len(own), np.nan))
        else:
            rows.append(measure(selected(own[:, kept], experts)))
    return np.stack(rows)
