"""The routed pass: texts in padded batches through a model, and what its routers did beside what it said, pass by pass
or as one table of tokens with the experts in their slots."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..measure.importance import activation_frequency, slot_sums
from ..trace import DenseModelError, Site, attach, find_sites
from ..trace.records import Record
from ..trace.restart import one_position
from ..trace.seam import Routing
from .errors import ModelError

MAX_TOKENS = 256


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


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same, padded on the left."""
    ids, mask = pad([s[::-1] for s in sequences], pad_id)
    return ids.flip(1), mask.flip(1)


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


@dataclass(frozen=True, eq=False)
class RoutedPass:
    """One pass over a batch of sequences, each behind the token that opens it.

    Attributes:
        rows: number of each sequence of the batch; ids, mask: `(batch, pos)` on the model's device, padding right.
        sites: the model's routers, none of a dense model; output: what the model gave back.
        record: full tensors of the routers, on the CPU; None of a dense model.
    """

    rows: list[int]
    ids: torch.Tensor
    mask: torch.Tensor
    sites: Sequence[Site]
    output: Any
    record: Record | None

    @property
    def text(self) -> torch.Tensor:
        """`(batch, pos)` bool, on the model's device: real tokens without the one that opens the sequence."""
        text = self.mask != 0
        text[:, 0] = False
        return text

    @property
    def sequence(self) -> np.ndarray:
        """`(token,)` number of each text token's sequence; a batch's text tokens stand row by row."""
        return np.asarray(self.rows)[self.text.nonzero()[:, 0].cpu().numpy()]

    def of_text(self, values: torch.Tensor) -> np.ndarray:
        """`(token, slot)` of the text tokens, from values of all, `(batch, pos, ...)` or a row for each token (or for
        each of its heads: their slots then follow one another)."""
        return values.reshape(*self.mask.shape, -1)[self.text.to(values.device)].cpu().numpy()

    def experts(self, site: Site) -> np.ndarray:
        """`(token, slot)` experts of the text tokens in one layer; -1 where a slot holds no routed expert."""
        index = self.of_text(self.routing(site).index)
        return np.where(index < site.num_experts, index, -1).astype(np.int32)

    def weights(self, site: Site) -> np.ndarray:
        """`(token, slot)` gate weights of the text tokens in one layer."""
        return self.of_text(self.routing(site).weight)

    def routing(self, site: Site) -> Routing:
        """Full tensors of one layer, `(batch, pos, class or slot)`; see `Record`."""
        assert self.record is not None
        return self.record.layers[site.layer]


def routed_passes(
    model: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    padding: int,
    batch_tokens: int = 4096,
    logits: bool = True,
    dense: bool = False,
    run: Callable[[torch.Tensor, torch.Tensor], Any] | None = None,
    **options: Any,
) -> Iterator[RoutedPass]:
    """Passes without gradients over sequences in batches of similar length, the shortest first, their routers watched.

    The model is attached to during each pass only: what a caller does between them is not recorded. A caller's own
    hooks, of experts' inputs for one, may stay around the loop.

    Args:
        ids: see `encode`; padding: see `padding_token`; batch_tokens: padded, of a batch.
        logits: of all positions; without, of the last one alone where the model can.
        dense: let a dense model pass, with no record.
        run: passes ids and mask through the model in its place, once; what it returns is the output.
        options: further arguments of the model's forward, `output_hidden_states` for one.

    Raises:
        DenseModelError: a dense model, unless `dense`.
    """
    sites = _sites(model, dense)
    options = {"use_cache": False, **({} if logits else one_position(model)), **options}
    for batch, tokens, mask in padded_batches(model, ids, padding, batch_tokens):
        with torch.no_grad(), attach(model) if sites else nullcontext() as trace:
            output = run(tokens, mask) if run else model(input_ids=tokens, attention_mask=mask, **options)
        yield RoutedPass(batch, tokens, mask, sites, output, trace.records[0] if trace else None)


def _sites(model: PreTrainedModel, dense: bool) -> list[Site]:
    try:
        return find_sites(model)
    except DenseModelError:
        if not dense:
            raise
        return []


@dataclass(frozen=True, eq=False)
class RoutedTokens:
    """Text tokens, sequence by sequence, and the experts in their slots; tokens that open sequences are left out.

    Attributes:
        sequence: `(token,)` number of the token's sequence; place: 0 for its first text token; length: of the
            sequence in text tokens; token: its id.
        index: `(token, layer, slot)` experts, the slots of all heads one after another; -1 where a slot holds none.
        weight: `(token, layer, slot)` gate weights; empty if not asked for.
        sites: the model's routers, one a layer; sequences: how many there are.
    """

    sequence: np.ndarray
    place: np.ndarray
    length: np.ndarray
    token: np.ndarray
    index: np.ndarray
    weight: np.ndarray
    sites: Sequence[Site]
    sequences: int

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers that route."""
        return tuple(site.layer for site in self.sites)

    @property
    def experts(self) -> int:
        """Routed experts of the layer with most."""
        return max(site.num_experts for site in self.sites)

    @property
    def selected(self) -> np.ndarray:
        """`(token, layer, expert)` bool: whether any slot holds the expert."""
        chosen = np.zeros((*self.index.shape[:2], self.experts + 1), dtype=bool)
        np.put_along_axis(chosen, self.index, True, -1)  # an empty slot, -1, is the last column
        return chosen[..., :-1]

    def counts(self) -> np.ndarray:
        """`(sequence, layer, expert)` selections."""
        each = [slot_sums(own, self.sequence, self.sequences, self.experts) for own in self.index.swapaxes(0, 1)]
        return np.stack(each, 1)

    def rates(self) -> np.ndarray:
        """`(sequence, layer, expert)` share of a sequence's tokens (with heads: of their parts) that select the expert.

        Raises:
            ValueError: a sequence without text tokens.
        """
        tokens = np.bincount(self.sequence, minlength=self.sequences)
        heads = [site.heads for site in self.sites]
        each = zip(self.counts().swapaxes(0, 1), heads, strict=True)
        return np.stack([activation_frequency(own, tokens * parts) for own, parts in each], 1)


def routed_tokens(
    model: PreTrainedModel,
    ids: Sequence[Sequence[int]],
    padding: int,
    batch_tokens: int = 4096,
    weight: bool = False,
) -> RoutedTokens:
    """Routing of every text token of some sequences, without logits.

    Args:
        ids, padding, batch_tokens: see `routed_passes`; weight: keep gate weights.

    Raises:
        DenseModelError: a dense model; ValueError: no sequences.
    """
    if not len(ids):
        raise ValueError("no text to pass through the model")
    sites = find_sites(model)
    parts = [_flat(one, weight) for one in routed_passes(model, ids, padding, batch_tokens, logits=False)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["sequence"], kind="stable")
    return RoutedTokens(**{name: values[order] for name, values in joined.items()}, sites=sites, sequences=len(ids))


def _flat(one: RoutedPass, weight: bool) -> dict[str, np.ndarray]:
    text = one.text.cpu().numpy()
    row, position = text.nonzero()
    slots = max(site.top_k * site.heads for site in one.sites)
    index = [_filled(one.experts(site), slots, -1) for site in one.sites]
    weights = [_filled(one.weights(site), slots, np.nan) for site in one.sites] if weight else []
    return {
        "sequence": np.asarray(one.rows)[row], "place": position - 1, "length": text.sum(1)[row],
        "token": one.of_text(one.ids)[:, 0], "index": np.stack(index, 1),
        "weight": np.stack(weights, 1) if weight else np.empty((len(row), 0, 0)),
    }  # fmt: skip


def _filled(values: np.ndarray, slots: int, blank: int | float) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, slots - values.shape[1])), constant_values=blank)
