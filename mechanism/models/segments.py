"""One pass over segments, reduced per segment to what the studies need."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..measure.consistency import Consistency, selected
from .passes import RoutedPass, encode, next_token_nll, padding_token, room, routed_passes


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
    rows: dict[int, dict[str, np.ndarray]] = {}
    passes = routed_passes(model, sequences, padding_token(tokenizer), dense=True, output_hidden_states=hidden)
    for one in passes:
        reduced = _reduce(one, hidden)
        if one.record:
            reduced |= _reduce_routing(one)
            if consistency:
                reduced["consistency"] = _consistency(one, counted[one.rows])
        rows |= {i: {key: value[row] for key, value in reduced.items()} for row, i in enumerate(one.rows)}
    stacked = {key: np.stack([rows[i][key] for i in range(len(texts))]) for key in rows[0]}
    size = np.array([len(text.encode()) for text in texts])
    return SegmentPass(**stacked, bytes=size, layers=tuple(site.layer for site in one.sites))


def _reduce(one: RoutedPass, hidden: bool) -> dict[str, np.ndarray]:
    """Sums and means over the text tokens of each sequence."""
    text = one.text
    count = text.sum(1)
    nll = next_token_nll(one.output.logits, one.ids)
    found = {"nll": (nll * one.mask[:, 1:]).sum(1), "tokens": count}
    if hidden:
        states = torch.stack(one.output.hidden_states, 2)
        found["hidden"] = torch.einsum("bpld,bp->bld", states.float(), text.float()) / count[:, None, None]
    return {key: value.cpu().numpy() for key, value in found.items()}


def _reduce_routing(one: RoutedPass) -> dict[str, np.ndarray]:
    """Importance and selections of each sequence over its text tokens."""
    text = one.text.cpu().float()
    routed = [one.routing(site) for site in one.sites]
    # A router with several rows a token (heads): the mean of their probabilities, the sum of their selections.
    probs = torch.stack([r.logits.softmax(-1).unsqueeze(2).flatten(2, -2).mean(2) for r in routed], 2)
    chosen = torch.stack([F.one_hot(r.index, probs.shape[-1]).flatten(2, -2).sum(2) for r in routed], 2).float()
    importance = torch.einsum("bple,bp->ble", probs, text) / text.sum(1)[:, None, None]
    return {"importance": importance.numpy(), "selections": torch.einsum("bple,bp->ble", chosen, text).numpy()}


def _consistency(one: RoutedPass, counted: np.ndarray) -> np.ndarray:
    """`(batch, layer)` consistency over so many first text tokens of each sequence."""
    text = one.text.cpu().numpy() & (np.arange(one.mask.shape[1]) <= counted[:, None])
    measure = Consistency()
    routed = [one.routing(site) for site in one.sites]
    index = np.stack([r.index.numpy() for r in routed], 1)
    experts = max(r.logits.shape[-1] for r in routed)
    rows = []
    for own, kept in zip(index, text, strict=True):
        if kept.sum() < 2:
            rows.append(np.full(len(own), np.nan))
        else:
            rows.append(measure(selected(own[:, kept], experts)))
    return np.stack(rows)
