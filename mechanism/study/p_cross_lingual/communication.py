"""All-to-all volume of a model's measured routing: experts in order, and experts pinned to their languages' devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import committed, training_budgets, training_rows
from ...corpus.store import Corpus
from ...measure import placement
from ...measure.evidence import Evidence
from ...measure.statistics import ClusterBootstrap
from ...models.passes import RoutedTokens, encode, padding_token, room, routed_tokens
from ..base.texts import RoutingConfig

DEVICES = (2, 4, 8, 16, 32, 64)


@dataclass
class RoutedText:
    """Routing of a text in several languages: selected experts of every token, number of the language and document of
    each sequence, `(sequence,)`, width of a hidden state, and languages by number."""

    tokens: RoutedTokens
    lang: np.ndarray
    cluster: np.ndarray
    width: int
    codes: tuple[str, ...]


def route_text(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: Corpus, codes: Sequence[str],
    config: RoutingConfig,
) -> RoutedText:  # fmt: skip
    """Run a text in every language and keep which experts its tokens select."""
    rows = config.rows(corpus)
    texts = [(n, i, corpus.columns[code][i]) for n, code in enumerate(codes) for i in rows if corpus.columns[code][i]]
    numbers, chosen, sequences = zip(*texts, strict=True)
    tokens = routed_tokens(model, encode(tokenizer, sequences, room(model)), padding_token(tokenizer))
    cluster = np.array([corpus.rows[i].group for i in chosen])
    return RoutedText(tokens, np.array(numbers), cluster, int(model.config.hidden_size), tuple(codes))


def text_shares(codes: Sequence[str]) -> dict[str, float]:
    """Share of each language in a stream that draws it with probability proportional to (its characters of training
    text) ** 0.7."""
    sizes = [
        sum(
            len(committed(name).columns[code][i])
            for name, budget in training_budgets(code).items()
            for i in training_rows(committed(name), code, budget)
        )
        for code in codes
    ]
    weight = np.array(sizes, np.float64) ** 0.7
    return dict(zip(codes, (weight / weight.sum()).tolist(), strict=True))


def compare_placements(fit: RoutedText, test: RoutedText, shares: Mapping[str, float], seed: int = 0) -> pd.DataFrame:
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
    return pd.DataFrame([row for d in DEVICES if (row := _row(fit, test, share, d, seed)) is not None])


def at_devices(placed: pd.DataFrame, devices: int = 8) -> Evidence | str:
    """P14: the fall at a number of devices; the null is the lowest lower end at any other. A sentence where experts
    cannot be shared out over so many."""
    own, others = placed[placed["devices"] == devices], placed[placed["devices"] != devices]
    if own.empty:
        return f"experts cannot be shared out over {devices} devices"
    least = others.loc[others["low"].idxmin()]
    note = f"lowest over {least['devices']:.0f} devices: {least['fall']:.2f} [{least['low']:.2f}, {least['high']:.2f}]"
    return Evidence(*own[["fall", "low", "high", "n"]].iloc[0]).against(least["low"], note=note)


def _row(fit: RoutedText, test: RoutedText, share: np.ndarray, devices: int, seed: int) -> dict[str, Any] | None:
    try:
        plain = placement.in_order(fit.tokens.index.shape[1], fit.tokens.experts, devices)
    except placement.PlacementError:
        return None
    seats = placement.traffic(
        fit.tokens.index, _homes(fit, share, devices), _weights(fit, share), devices, fit.tokens.experts
    )
    pinned, sent = placement.by_traffic(seats), placement.AllToAll(test.width)
    sequences = len(test.lang)
    home, spread_home = _homes(test, share, devices), placement.spread(sequences, devices)[test.tokens.sequence]
    weight = _weights(test, share)

    def volume(place: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.bincount(test.tokens.sequence, sent(test.tokens.index, at, place) * weight, minlength=sequences)

    base, moved = volume(plain, spread_home), volume(pinned, home)
    ratio = ClusterBootstrap(seed=seed)(moved, base, test.cluster)
    used = placement.traffic(test.tokens.index, home, weight, devices, test.tokens.experts)
    return {
        "devices": devices, "fall": 1 - ratio.estimate, "low": 1 - ratio.high, "high": 1 - ratio.low, "n": ratio.n,
        "in order": float(base.sum() / weight.sum()), "pinned": float(moved.sum() / weight.sum()),
        "sent only": float(1 - volume(plain, home).sum() / base.sum()),
        "load in order": placement.imbalance(used, plain), "load pinned": placement.imbalance(used, pinned),
    }  # fmt: skip


def _homes(routed: RoutedText, share: np.ndarray, devices: int) -> np.ndarray:
    return placement.by_language(routed.lang, share, devices)[routed.tokens.sequence]


def _weights(routed: RoutedText, share: np.ndarray) -> np.ndarray:
    """Weight of each token, so that languages weigh as much as their shares."""
    lang = routed.lang[routed.tokens.sequence]
    counts = np.bincount(lang, minlength=len(share))
    return share[lang] / counts[lang] * len(lang)
