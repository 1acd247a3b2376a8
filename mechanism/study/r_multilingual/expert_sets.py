"""Task experts and multilingual experts: differences of activation frequency, and sets that a threshold cuts out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measure.importance import activation_frequency, frequency_difference, slot_sums
from ...measure.overlap import experts_above
from ...measure.profile import window
from ...models.passes import encode, padded_batches, padding_token, room
from ...models.shared_prefix import head_at
from ...trace import attach, find_sites
from ...trace.interventions import Targets
from ...trace.records import Record
from ...trace.restart import decoder_layers


@dataclass(frozen=True)
class ExpertFrequencies:
    """Activation frequencies on generic English text, and what task and other languages add to them (arXiv 2510.04694,
    eq. 3).

    Attributes:
        layers: decoder layers that route; depth: number of decoder layers; slots: experts per token.
        base: `(layer, expert)` frequency on generic text in the pivot language.
        task: `(layer, expert)` difference, task text minus base.
        languages: `(lang, layer, expert)` difference of each other language's generic text; codes: which.
    """

    layers: tuple[int, ...]
    depth: int
    slots: int
    base: np.ndarray
    task: np.ndarray
    languages: np.ndarray
    codes: tuple[str, ...]

    @property
    def multilingual(self) -> np.ndarray:
        """`(layer, expert)` the largest difference of any language."""
        return np.asarray(self.languages.max(0))

    def window(self, low: float, high: float) -> tuple[int, ...]:
        """Routing layers whose centre lies in this part of the depth."""
        inside = np.flatnonzero(window(self.depth, low, high))
        return tuple(int(layer) for layer in inside if layer in self.layers)

    def chosen(self, difference: np.ndarray, tau: float, layers: Sequence[int]) -> np.ndarray:
        """`(layer, expert)` experts above the threshold in these decoder layers."""
        inside = np.isin(self.layers, list(layers))[:, None]
        return np.asarray(experts_above(difference, tau) & inside)

    def strongest(self, difference: np.ndarray, layers: Sequence[int]) -> np.ndarray:
        """`(layer, expert)` the one expert with the largest difference in each of these decoder layers."""
        best = difference == difference.max(1, keepdims=True)
        return np.asarray(best & np.isin(self.layers, list(layers))[:, None])

    def targets(self, chosen: np.ndarray) -> Targets:
        """Pairs (decoder layer, expert) of a set `(layer, expert)`."""
        return tuple((self.layers[row], int(expert)) for row, expert in np.argwhere(chosen))

    def limited(self, chosen: np.ndarray, difference: np.ndarray) -> np.ndarray:
        """The set without what has no slot: in each layer the largest differences, as many as a token has slots."""
        order = np.where(chosen, -difference, np.inf).argsort(1, kind="stable").argsort(1, kind="stable")
        return np.asarray(chosen & (order < self.slots))


def expert_frequencies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Sequence[str],
    generic: Mapping[str, Sequence[str]],
    progress: Callable[[str], None] = lambda line: None,
) -> ExpertFrequencies:
    """Frequencies on task text and on generic text by language, the pivot's first.

    Raises:
        DenseModelError: the model has no routers.
    """
    sites = find_sites(model)
    found = {}
    for name, texts in {"task": task, **{f"generic {code}": texts for code, texts in generic.items()}}.items():
        progress(f"experts on {name}")
        found[name] = activation_rates(model, tokenizer, texts)
    pivot, *others = generic
    base = found[f"generic {pivot}"]
    languages = [frequency_difference(found[f"generic {code}"], base) for code in others]
    return ExpertFrequencies(
        layers=tuple(site.layer for site in sites),
        depth=len(decoder_layers(model)),
        slots=min(site.top_k for site in sites),
        base=base.mean(0),
        task=frequency_difference(found["task"], base),
        languages=np.stack(languages) if languages else np.zeros((0, *base.shape[1:])),
        codes=tuple(others),
    )


@torch.no_grad()
def activation_rates(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Float[np.ndarray, "segment layer expert"]:
    """Share of each text's tokens, the opening one left out, that select each expert. Only routers and what is below
    them run: no logits are made."""
    sequences = encode(tokenizer, texts, room(model))
    found: dict[int, np.ndarray] = {}
    with attach(model) as trace:
        for batch, ids, mask in padded_batches(model, sequences, padding_token(tokenizer), 8192):
            corner = torch.zeros(1, dtype=torch.long, device=ids.device)
            with head_at(model, (corner, corner)):
                model(input_ids=ids, attention_mask=mask, use_cache=False)
            found |= dict(zip(batch, _rates(trace.records.pop(), mask.cpu().bool()), strict=True))
    return np.stack([found[i] for i in range(len(texts))])


def _rates(record: Record, mask: Tensor) -> np.ndarray:
    """`(segment, layer, expert)` rates over the inner tokens of one pass."""
    inner = mask.clone()
    inner[:, 0] = False
    experts = max(routing.logits.shape[-1] for routing in record.layers.values())
    layers = []
    for layer in sorted(record.layers):
        index = record.layers[layer].index.flatten(2)
        slots = index.shape[2] // record.layers[layer].index.shape[-1]
        rows = torch.arange(len(mask))[:, None].expand_as(mask)[inner]
        sums = slot_sums(index[inner].numpy(), rows.numpy(), len(mask), experts)
        layers.append(activation_frequency(sums, inner.sum(1).numpy() * slots))
    return np.stack(layers, 1)
