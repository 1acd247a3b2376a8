"""All-to-all volume of a model's measured routing: experts in order, and experts pinned to their languages' devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import committed, training_budgets, training_rows
from ...corpus.store import Corpus
from ...measure.placement import (
    AllToAll,
    PlacementError,
    by_language,
    by_traffic,
    imbalance,
    in_order,
    spread,
    traffic,
)
from ...measure.statistics import ClusterBootstrap
from ...models.passes import encode, padded_batches, padding_token
from ...trace import attach
from ..base.texts import RoutingConfig

DEVICES = (2, 4, 8, 16, 32, 64)


@dataclass
class Routed:
    """Selected experts of every token of a text.

    Attributes:
        index: `(token, layer, slot)`; sequence: `(token,)`; lang: `(sequence,)` number of the language; cluster:
            `(sequence,)` document; experts: of a layer; width: of a hidden state; codes: languages by number.
    """

    index: np.ndarray
    sequence: np.ndarray
    lang: np.ndarray
    cluster: np.ndarray
    experts: int
    width: int
    codes: tuple[str, ...]


@torch.no_grad()
def routed_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, codes: Sequence[str],
    config: RoutingConfig,
) -> Routed:  # fmt: skip
    """Run a text in every language and keep which experts its tokens select; the token that opens a sequence and
    padding are left out."""
    rows = config.rows(corpus)
    texts = [(n, i, corpus.columns[code][i]) for n, code in enumerate(codes) for i in rows if corpus.columns[code][i]]
    sequences = encode(tokenizer, [text for _, _, text in texts])
    kept: dict[int, np.ndarray] = {}
    with attach(model) as trace:
        for batch, ids, mask in padded_batches(model, sequences, padding_token(tokenizer)):
            trace.records.clear()
            model(input_ids=ids, attention_mask=mask, use_cache=False)
            (record,) = trace.records
            index = np.stack([record.layers[layer].index.numpy() for layer in sorted(record.layers)], 2)
            for row, i in enumerate(batch):
                kept[i] = index[row, 1 : len(sequences[i])]
    experts = int(next(iter(record.layers.values())).logits.shape[-1])
    sizes = [len(kept[i]) for i in range(len(texts))]
    return Routed(
        np.concatenate([kept[i] for i in range(len(texts))]),
        np.repeat(np.arange(len(texts)), sizes),
        np.array([n for n, _, _ in texts]),
        np.array([corpus.rows[i].group for _, i, _ in texts]),
        experts,
        int(model.config.hidden_size),
        tuple(codes),
    )


def text_shares(codes: Sequence[str], alpha: float = 0.7) -> dict[str, float]:
    """Share of each language in a stream that draws it with probability proportional to (its characters of training
    text) ** alpha."""
    sizes = [
        sum(
            len(committed(name).columns[code][i])
            for name, budget in training_budgets(code).items()
            for i in training_rows(committed(name), code, budget)
        )
        for code in codes
    ]
    weight = np.array(sizes, np.float64) ** alpha
    return dict(zip(codes, (weight / weight.sum()).tolist(), strict=True))


def compare_placements(
    fit: Routed, test: Routed, shares: Mapping[str, float], devices: Sequence[int] = DEVICES, seed: int = 0
) -> pd.DataFrame:
    """Relative fall in bytes between devices from experts in order and sequences spread, by number of devices.

    Args:
        fit: routing that the placement follows; test: routing that is counted; shares: of the languages in the
            text that is served, by which both are weighted.

    Returns:
        Columns `devices`, `fall` with `low` and `high` (documents resampled), `in order` and `pinned` in bytes a token,
        `sent only`, the fall with sequences sent to their languages' devices and experts in order, and the load of the
        busiest device over the mean, `load in order` and `load pinned`. Devices that the experts cannot be shared out
        over are left out.
    """
    share = np.array([shares[code] for code in test.codes])
    share = share / share.sum()
    return pd.DataFrame([row for d in devices if (row := _row(fit, test, share, d, seed)) is not None])


def _row(fit: Routed, test: Routed, share: np.ndarray, devices: int, seed: int) -> dict[str, Any] | None:
    try:
        plain = in_order(fit.index.shape[1], fit.experts, devices)
    except PlacementError:
        return None
    seats = traffic(fit.index, _homes(fit, share, devices), _weights(fit, share), devices, fit.experts)
    pinned, sent = by_traffic(seats), AllToAll(test.width)
    sequences = len(test.lang)
    home, spread_home = _homes(test, share, devices), spread(sequences, devices)[test.sequence]
    weight = _weights(test, share)

    def volume(place: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.bincount(test.sequence, sent(test.index, at, place) * weight, minlength=sequences)

    base, moved = volume(plain, spread_home), volume(pinned, home)
    ratio = ClusterBootstrap(seed=seed)(moved, base, test.cluster)
    used = traffic(test.index, home, weight, devices, test.experts)
    return {
        "devices": devices, "fall": 1 - ratio.estimate, "low": 1 - ratio.high, "high": 1 - ratio.low, "n": ratio.n,
        "in order": float(base.sum() / weight.sum()), "pinned": float(moved.sum() / weight.sum()),
        "sent only": float(1 - volume(plain, home).sum() / base.sum()),
        "load in order": imbalance(used, plain), "load pinned": imbalance(used, pinned),
    }  # fmt: skip


def _homes(routed: Routed, share: np.ndarray, devices: int) -> np.ndarray:
    return by_language(routed.lang, share, devices)[routed.sequence]


def _weights(routed: Routed, share: np.ndarray) -> np.ndarray:
    """Weight of each token, so that languages weigh as much as their shares."""
    lang = routed.lang[routed.sequence]
    counts = np.bincount(lang, minlength=len(share))
    return share[lang] / counts[lang] * len(lang)
