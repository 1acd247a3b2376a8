"""How much of the output an expert drives: rankings by causal effect, by name."""

from collections.abc import Callable, Sequence
from types import MappingProxyType

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.passes import encode, padding_token, room
from .sweep import Plan

Effect = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Sequence[str]], np.ndarray]
TOKENS = 64


def ablation_effect(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """Mean over tokens of `KL(p || p without the expert)` in nats, `(layer, expert)`, its contribution set to zero; 0
    for an expert that no token selects. For a few texts, each cut to 64 tokens; the one that opens a text is
    neither ablated nor counted. See `sweep`.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("an effect needs some text")
    ids = encode(tokenizer, texts, min(TOKENS, room(model)))
    found = Plan(model, ids, padding_token(tokenizer), ("zero",)).run()
    return np.asarray(found["kl"][0].sum(0) / found["tokens"].sum())


DRIVERS: MappingProxyType[str, Effect] = MappingProxyType({"ablation": ablation_effect})
