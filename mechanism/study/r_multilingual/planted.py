"""Controls that know the answer: models whose weights are set so that it is known what claims R1, R2 and R10 must find.

A word is a topic in a language. Its embedding holds the topic, faintly, what is peculiar to the word, strongly, and the
language. The experts of a layer are all alike; an early layer strengthens the topic, a late one what is peculiar, so
that hidden states do not depend on the routing, and a dense twin has the same ones. Routers look at topic and language,
as a plan says layer by layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus.languages import TRAINED
from ...corpus.store import Corpus, Segment
from ...corpus.tokenizer import SPECIAL, word_tokenizer
from ...measure.evidence import Evidence
from ...trace.families import tiny_model
from .effects import WIDE, Seeds
from .observe import observe

LANGUAGES = TRAINED[:10]
TOPICS, PECULIAR, LAYERS, SEGMENTS, LENGTH = 8, 16, 6, 20, 8
MIDDLE = np.array([0, 0, 1, 1, 0, 0])
Parts = Mapping[str, xr.Dataset]
"""Observations by seed."""


@dataclass(frozen=True)
class Plan:
    """What routers look at.

    Attributes:
        topic, language: weight of either, by layer.
        shared: experts before the middle strengthen the topic, and those behind it what is peculiar to a word.
        graded: in the middle, languages are looked at the more, the worse they are modelled; else all alike.
    """

    topic: np.ndarray
    language: np.ndarray
    shared: bool = True
    graded: bool = True


EVERY = np.ones(LAYERS)
CONTENT = Plan(topic=0.5 + 2.5 * MIDDLE, language=6.0 * (1 - MIDDLE))
TONGUE = Plan(topic=0.5 * EVERY, language=6.0 * EVERY, shared=False, graded=False)
BLIND = Plan(topic=0.5 * (1 - MIDDLE), language=6.0 * (1 - MIDDLE), shared=False, graded=False)
CASES: dict[str, tuple[Plan, str, bool]] = {
    "middle layers route by topic": (CONTENT, "parallel", True),
    "all layers route by language": (TONGUE, "parallel", False),
    "middle layers look at nothing": (BLIND, "parallel", False),
    "shuffled pairs": (CONTENT, "shuffled", False),
    "halves of English": (CONTENT, "halves", False),
}
"""Plan, texts, and whether the claims must hold, by case."""


@cache
def planted(seeds: int = 3) -> dict[str, dict[str, Evidence | str]]:
    """What claims R1, R2 and R10 are judged on, by case of `CASES`, with as many seeds."""
    found = {}
    for name, (plan, texts, _) in CASES.items():
        parts = {str(seed): observe_planted(plan, texts, seed) for seed in range(seeds)}
        found[name] = {claim: _or_reason(judge, parts) for claim, judge in JUDGES.items()}
    return found


def _seeds(parts: Parts, quantity: str = "divergence") -> Seeds:
    return Seeds({seed: {WIDE: own.assign(divergence=own[quantity])} for seed, own in parts.items()}, n_boot=500)


def _gain(parts: Parts) -> Evidence:
    own = _seeds(parts).gain()
    return own.against(own.estimate)


JUDGES: dict[str, Callable[[Parts], Evidence]] = {
    "R1": lambda parts: _seeds(parts).dip().against(_seeds(parts, "shuffled").dip().estimate),
    "R2": lambda parts: _seeds(parts).correlation(),
    "R10": _gain,
}


def observe_planted(plan: Plan, texts: str, seed: int) -> xr.Dataset:
    """`observe` of a planted model.

    Args:
        texts: `parallel`; `shuffled`, where pairs are of different sentences; `halves`, where all languages are English
            ones, of different sentences.
    """
    rng = np.random.default_rng(seed)
    own, any_topic = (rng.integers(0, TOPICS, (SEGMENTS, length)) for length in (1, LENGTH))
    topics = np.where(rng.random((SEGMENTS, LENGTH)) < 0.6, own, any_topic)
    columns = {}
    for code in LANGUAGES:
        told = topics if texts == "parallel" or code == "en" else rng.permutation(topics)
        word = "en" if texts == "halves" else code
        columns[code] = [" ".join(f"{word}{topic}" for topic in row) for row in told]
    rows = [Segment(str(i), str(i // 2), "test") for i in range(SEGMENTS)]
    tokenizer = word_tokenizer([f"{code}{topic}" for code in LANGUAGES for topic in range(TOPICS)])
    corpus = Corpus("planted", "planted", rows, columns)
    return observe(plant(plan, tokenizer, seed), tokenizer, corpus).assign_attrs(experts=TOPICS)


@torch.no_grad()
def plant(plan: Plan, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> PreTrainedModel:
    """A tiny model whose weights follow the plan."""
    rng, count = np.random.default_rng(seed + 100), len(LANGUAGES)
    topic, own = slice(0, TOPICS), slice(TOPICS, TOPICS + PECULIAR)
    tongue, one = slice(own.stop, own.stop + count), own.stop + count
    width = -(-(one + 1) // 8) * 8
    model: Any = tiny_model(
        "qwen3_moe", seed, vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=LAYERS, num_experts=TOPICS,
        num_experts_per_tok=2, moe_intermediate_size=PECULIAR, norm_topk_prob=True, tie_word_embeddings=False,
    )  # fmt: skip
    worse = np.array([0, *rng.permutation(np.linspace(0.1, 1, count - 1))])
    embedding, head = np.zeros((2, len(tokenizer), width))
    embedding[:, one] = 2.0
    embedding[len(SPECIAL) :, topic] = 0.3 * np.tile(np.eye(TOPICS), (count, 1))
    embedding[len(SPECIAL) :, own] = rng.normal(size=(count * TOPICS, PECULIAR)) / 2
    embedding[len(SPECIAL) :, tongue] = np.repeat(np.eye(count), TOPICS, 0)
    head[len(SPECIAL) :, tongue] = np.repeat(np.diag(1 - worse), TOPICS, 0)
    for module, values in ((model.get_input_embeddings(), embedding), (model.get_output_embeddings(), head)):
        module.weight.copy_(torch.as_tensor(values))
    taste = rng.normal(size=(TOPICS, count))
    for place, layer in enumerate(model.model.layers):
        weights = np.zeros((TOPICS, width))
        weights[:, topic] = plan.topic[place] * np.eye(TOPICS)
        weights[:, tongue] = plan.language[place] * taste / 4
        weights[:, one] = rng.normal(size=TOPICS) / 8  # the same for all words
        if plan.graded and MIDDLE[place]:
            weights[:, tongue] += 3 * worse * taste
        _plant_layer(layer, weights, {1: topic, LAYERS - 2: own}.get(place) if plan.shared else None, one)
    return model


def _plant_layer(layer: Any, router: np.ndarray, strengthened: slice | None, one: int) -> None:
    """Attention adds nothing; experts add a part of the hidden state to itself, if any."""
    layer.self_attn.o_proj.weight.zero_()
    layer.mlp.gate.weight.copy_(torch.as_tensor(router))
    both, down = layer.mlp.experts.gate_up_proj, layer.mlp.experts.down_proj
    both.zero_()
    down.zero_()
    if strengthened is not None:
        size = strengthened.stop - strengthened.start
        both[:, :size, one] = 2.0
        both[:, PECULIAR : PECULIAR + size, strengthened] = torch.eye(size)
        down[:, strengthened, :size] = torch.eye(size) / 2


def _or_reason(judge: Callable[[Parts], Evidence], parts: Parts) -> Evidence | str:
    try:
        return judge(parts)
    except ValueError as reason:
        return str(reason)
