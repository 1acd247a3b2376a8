"""All-to-all volume of a model's measured routing: experts in order, and experts pinned to their languages' devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.languages import TRAINED
from ...corpus.library import PARALLEL, committed, load, training_budgets, training_rows
from ...corpus.store import Corpus
from ...measure import placement
from ...measure.evidence import Evidence
from ...measure.seeds import Sampled, over_seeds
from ...measure.statistics import ClusterBootstrap
from ...models.load import model_hash
from ...models.passes import RoutedTokens, encode, padding_token, room, routed_tokens
from ..base.records import texts_hash
from ..base.study import Study, plain
from ..base.texts import RoutingConfig

DEVICES = (2, 4, 8, 16, 32, 64)
STUDY = "placement"


@dataclass(frozen=True)
class PlacementConfig:
    """What is routed: a corpus by name, languages (all trained ones of a committed corpus without any), a cap on the
    segments of each, and the seed of resampling."""

    corpus: str = "tech"
    languages: tuple[str, ...] | None = None
    max_segments: int | None = 60
    seed: int = 0


def study(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str = "float32",
    profile: str = "auto", config: PlacementConfig = PlacementConfig(),
) -> list[xr.Dataset]:  # fmt: skip
    """What `compare_placements` finds in a model under a profile of `PROFILES`, the full one on all segments; and
    behind it what is recorded of models of the other training seeds, where it is the full one.

    Args:
        spec, dtype: of the model, for the address of its record.

    Raises:
        ValueError: no such profile; CorpusError: no such corpus, or a language that it lacks.
    """
    full, corpus = replace(config, max_segments=None), load(config.corpus, config.languages or ())
    command = f"mechanism notebooks --only 41 -p model={spec} -p profile=full"
    key = {"study": STUDY, "model": model_hash(spec), "dtype": dtype, **plain(full)}
    texts = texts_hash([corpus])

    def placed(asked: PlacementConfig) -> xr.Dataset:
        every = asked.languages or config.corpus not in PARALLEL
        codes = [code for code in asked.languages or corpus.columns if every or code in TRAINED]
        sides = ("dev", "test") if corpus.split("dev") else ("test", "test")
        fit, test = (
            route_text(model, tokenizer, corpus, codes, RoutingConfig(max_segments=asked.max_segments, split=side))
            for side in sides
        )
        shares = text_shares(codes) if set(codes) <= set(TRAINED) else dict.fromkeys(codes, 1.0)
        return compare_placements(fit, test, shares, asked.seed)

    asked = Study(key, texts, lambda: placed(full), lambda: placed(config), command, spec)
    found = asked.result(profile)
    return [found, *asked.others(found).values()]


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


def compare_placements(fit: RoutedText, test: RoutedText, shares: Mapping[str, float], seed: int = 0) -> xr.Dataset:
    """Relative fall in bytes between devices from experts in order and sequences spread, by number of devices.

    Args:
        fit: routing that the placement follows; test: routing that is counted; shares: of the languages in the
            text that is served, by which both are weighted; seed: of the resampling of documents.

    Returns:
        By `devices` the `fall` with its `draws` `(devices, draw)`, documents resampled; `in order` and `pinned` in
        bytes a token; `sent only`, the fall with sequences sent to their languages' devices and experts in order; and
        the load of the busiest device over the mean, `load in order` and `load pinned`. `documents` has the names of
        the documents. Devices that the experts cannot be shared out over are left out.
    """
    share = np.array([shares[code] for code in test.codes])
    share = share / share.sum()
    rows = {d: row for d in DEVICES if (row := _row(fit, test, share, d, seed)) is not None}
    draws = xr.DataArray([row.pop("draws") for row in rows.values()], dims=("devices", "draw"))
    found = xr.Dataset.from_dataframe(pd.DataFrame.from_dict(rows, orient="index").rename_axis("devices"))
    return found.assign(draws=draws, documents=("document", np.unique(test.cluster)))


def by_devices(found: xr.Dataset) -> pd.DataFrame:
    """What `compare_placements` finds as a table, a row for each number of devices: `devices`, `fall` with `low` and
    `high`, `n` documents, and the rest."""
    low, high = (found["draws"].quantile(tail, "draw").values for tail in (0.025, 0.975))
    table = found.drop_vars(["draws", "documents"]).to_dataframe().reset_index()
    for at, (name, values) in enumerate({"low": low, "high": high, "n": found.sizes["document"]}.items()):
        table.insert(2 + at, name, values)
    return table


def at_devices(models: Sequence[xr.Dataset], devices: int = 8) -> Evidence | str:
    """P14: the fall at a number of devices, over models; the null is the lowest lower end at any other. A sentence
    where experts cannot be shared out over so many.

    Args:
        models: of `study`, which have routed the same documents.
    """
    numbers = models[0]["devices"].values.tolist()
    if devices not in numbers:
        return f"experts cannot be shared out over {devices} devices"
    names = models[0]["documents"].values.tolist()

    def over_models(number: int) -> Evidence:
        own = [one.sel(devices=number) for one in models]
        return over_seeds(
            [Sampled(float(one["fall"]), one["draws"].values, len(set(names)), names=names) for one in own]
        )

    at = {number: over_models(number) for number in numbers}
    least = min((number for number in at if number != devices), key=lambda number: at[number].low)
    own = at[least]
    note = f"lowest over {least} devices: {own.estimate:.2f} [{own.low:.2f}, {own.high:.2f}]"
    return at[devices].against(own.low, note=note)


def _row(fit: RoutedText, test: RoutedText, share: np.ndarray, devices: int, seed: int) -> dict[str, Any] | None:
    try:
        ordered = placement.in_order(fit.tokens.index.shape[1], fit.tokens.experts, devices)
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

    base, moved = volume(ordered, spread_home), volume(pinned, home)
    used = placement.traffic(test.tokens.index, home, weight, devices, test.tokens.experts)
    return {
        "draws": 1 - ClusterBootstrap(seed=seed).draws(moved, base, test.cluster),
        "fall": 1 - moved.sum() / base.sum(),
        "in order": float(base.sum() / weight.sum()), "pinned": float(moved.sum() / weight.sum()),
        "sent only": float(1 - volume(ordered, home).sum() / base.sum()),
        "load in order": placement.imbalance(used, ordered), "load pinned": placement.imbalance(used, pinned),
    }  # fmt: skip


def _homes(routed: RoutedText, share: np.ndarray, devices: int) -> np.ndarray:
    return placement.by_language(routed.lang, share, devices)[routed.tokens.sequence]


def _weights(routed: RoutedText, share: np.ndarray) -> np.ndarray:
    """Weight of each token, so that languages weigh as much as their shares."""
    lang = routed.lang[routed.tokens.sequence]
    counts = np.bincount(lang, minlength=len(share))
    return share[lang] / counts[lang] * len(lang)
