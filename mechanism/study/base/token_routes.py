"""Which experts every token of parallel sentences goes to, read and generated: what the token explorer shows."""

import html
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.store import SPLITS, Corpus, CorpusError
from ...corpus.text import even
from ...models.passes import batches_by_length, encode, pad_left, padding_token, room
from ...models.scoring import plain_decoding
from ...trace import Site, attach, find_sites
from ...trace.records import Record
from .expert_tokens import expert_tokens, shown
from .texts import pivot_of

SENTENCES, GENERATED = 10, 16
SAMPLE = 24
"""Segments a language that an expert's rates and typical tokens are read off."""
LEVELS = 255
"""Steps that weights are written in."""


@dataclass(frozen=True, eq=False)
class Routes:
    """The tokens of one text and of what was generated behind it, without the token that opens the text.

    Attributes:
        token: `(token,)` ids; read: how many of them are the text.
        index: `(token, layer, slot)` experts, -1 where a slot holds none; weight: as the experts receive them.
        decoded: whether the generated tokens were routed one at a time (a family without a cache passes all again).
    """

    token: np.ndarray
    read: int
    index: np.ndarray
    weight: np.ndarray
    decoded: bool = True


def routed_generation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], generated: int = GENERATED
) -> list[Routes]:
    """Route texts, and up to `generated` tokens that the model goes on with, greedily, until it ends the text.

    Raises:
        DenseModelError: a dense model.
    """
    prompts = encode(tokenizer, texts, max(1, room(model) - generated - 1))
    sites, found = find_sites(model), dict[int, Routes]()
    ends = {tokenizer.eos_token_id, *np.atleast_1d(model.generation_config.eos_token_id or [])}
    for batch in batches_by_length(prompts):
        ids, mask = pad_left([prompts[i] for i in batch], padding_token(tokenizer))
        with plain_decoding(model), attach(model) as trace, torch.no_grad():
            out = model.generate(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), do_sample=False,
                max_new_tokens=generated + 1, pad_token_id=padding_token(tokenizer),
            )  # fmt: skip
        first, *later = trace.records  # the last token that is generated goes through no router
        index, weight = (
            np.concatenate([_slots(first, sites, name), *(_slots(r, sites, name)[:, -1:] for r in later)], 1)
            for name in ("index", "weight")
        )
        token = out[:, : index.shape[1]].cpu().numpy()
        decoded = all(record.at.phase == "decode" for record in later)
        for row, i in enumerate(batch):
            made = list(token[row, ids.shape[1] :])
            kept = next((at for at, one in enumerate(made) if one in ends), len(made))
            own = slice(ids.shape[1] - len(prompts[i]) + 1, ids.shape[1] + kept)
            found[i] = Routes(token[row, own], len(prompts[i]) - 1, index[row, own], weight[row, own], decoded)
    return [found[i] for i in range(len(prompts))]


def _slots(record: Record, sites: Sequence[Site], name: str) -> np.ndarray:
    """`(batch, pos, layer, slot)` of a pass, the slots of all heads one after another; -1, and 0 of weights, where a
    slot holds no routed expert or a layer has fewer."""
    slots = max(site.top_k * site.heads for site in sites)
    parts = []
    for site in sites:
        routing = record.layers[site.layer]
        index, values = routing.index.flatten(2), getattr(routing, name).flatten(2)
        blank = -1 if name == "index" else 0
        own = torch.where(index < site.num_experts, values, blank).float().numpy()
        parts.append(np.pad(own, ((0, 0), (0, 0), (0, slots - own.shape[2])), constant_values=blank))
    return np.stack(parts, 2)


def sentence_rows(corpus: Corpus, codes: Sequence[str], most: int) -> tuple[list[int], list[int]]:
    """Rows of the first split that has any, test text first, that most of the languages have: the shortest in the
    pivot language, in order; and an even sample of all.

    Raises:
        CorpusError: no rows.
    """
    rows = next(filter(None, map(corpus.split, reversed(SPLITS))), [])
    held = {i: sum(bool(corpus.columns[code][i]) for code in codes) for i in rows}
    best = [i for i in rows if held[i] == max(held.values()) > 0]
    if not best:
        raise CorpusError(f"corpus {corpus.name!r} has no segment in {' '.join(codes)}")
    pivot = corpus.columns[pivot_of(corpus)]
    return sorted(sorted(best, key=lambda i: (len(pivot[i]), i))[:most]), even(best, SAMPLE)


def token_routes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    languages: Sequence[str] | None = None,
    sentences: int = SENTENCES,
    generated: int = GENERATED,
) -> dict[str, Any]:
    """The record of the token explorer, ready for JSON: whole numbers, tokens as places in a list of texts.

    Args:
        languages: codes; all of the corpus without any. The language that others are compared with is always among
            them.

    Returns a mapping: `pivot`; `layers`, their numbers; `experts` of the layer with most; `slots`; `decoded`;
    `tokens`, texts; `titles`, the sentences in the pivot language; `texts`, by language a list with, for each sentence,
    None or `t` (tokens), `n` (how many of them are read), `e` and `w`, experts and weights over `(token, layer, slot)`,
    flat; a weight is `w * scale / 255`. By language and flat over `(layer, expert)`: `rates`, in thousandths of tokens
    that select the expert, and `words`, tokens that it receives beyond its share.

    Raises:
        CorpusError: no segments, or a language that the corpus does not have; DenseModelError: a dense model.
    """
    pivot = pivot_of(corpus)
    codes = list(dict.fromkeys([*(languages or corpus.languages), pivot]))
    for code in codes:
        corpus.texts(code, ())
    rows, sample = sentence_rows(corpus, codes, sentences)
    routed = {code: _routed(model, tokenizer, corpus.texts(code, rows), generated) for code in codes}
    texts = {code: own for code in codes if (own := [text for text in corpus.texts(code, sample) if text])}
    of_experts = expert_tokens(model, tokenizer, texts, "lang", least=2)
    every = [one for own in routed.values() for one in own if one]
    scale = max(float(abs(one.weight).max(initial=0)) for one in every) or 1.0
    place: defaultdict[str, int] = defaultdict(lambda: len(place))
    return {
        "pivot": pivot,
        "layers": of_experts["layer"].values.tolist(),
        "experts": of_experts.sizes["expert"],
        "slots": every[0].index.shape[-1],
        "scale": scale,
        "decoded": all(one.decoded for one in every),
        "titles": corpus.texts(pivot, rows),
        "texts": {code: [one and _plain(one, tokenizer, place, scale) for one in own] for code, own in routed.items()},
        "rates": {code: _flat(of_experts["rate"].sel(lang=code).fillna(0) * 1000) for code in texts},
        "words": {
            code: [
                [place[html.unescape(word)] for word in own.split()]
                for own in of_experts["tokens"].sel(lang=code).values.ravel()
            ]
            for code in texts
        },
        "tokens": list(place),
    }


def _routed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], generated: int
) -> list[Routes | None]:
    """Routes of each text, None of an empty one."""
    own = iter(routed_generation(model, tokenizer, [text for text in texts if text], generated))
    return [next(own) if text else None for text in texts]


def _plain(one: Routes, tokenizer: PreTrainedTokenizerBase, place: dict[str, int], scale: float) -> dict[str, Any]:
    return {
        "t": [place[html.unescape(shown(tokenizer, int(token)))] for token in one.token],
        "n": one.read,
        "e": _flat(one.index),
        "w": _flat(one.weight * LEVELS / scale),
    }


def _flat(values: Any) -> list[int]:
    return np.asarray(values).round().astype(int).ravel().tolist()
