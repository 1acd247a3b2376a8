"""How much of the output an expert drives: rankings by causal effect, by name."""

from collections.abc import Callable, Sequence
from types import MappingProxyType

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..trace import Ablate, attach
from .passes import encode, pad, room

Effect = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Sequence[str]], np.ndarray]
TOKENS = 64


@torch.no_grad()
def ablation_effect(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """Mean over tokens of `KL(p || p without the expert)` in nats, `(layer, expert)`, its contribution set to zero; 0
    for an expert that no token selects. One pass per expert: for a few texts, each cut to 64 tokens.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("an effect needs some text")
    ids, mask = (
        t.to(model.device) for t in pad(encode(tokenizer, texts, min(TOKENS, room(model))), tokenizer.pad_token_id)
    )
    inner = mask.bool().clone()
    inner[:, 0] = False

    def logprobs() -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits[inner].double().log_softmax(-1)

    with attach(model) as trace:
        clean = logprobs()
        old = clean.exp()
        sites, record = trace.sites, trace.records[0]
    found = np.zeros((len(sites), max(site.num_experts for site in sites)))
    for at, site in enumerate(sites):
        used = record.layers[site.layer].index[mask.bool().cpu()].unique().tolist()
        for expert in (e for e in used if e < site.num_experts):
            with attach(model, [Ablate(((site.layer, expert),))], keep=False, check=False):
                found[at, expert] = float((old * (clean - logprobs())).sum(-1).mean())
    return found


DRIVERS: MappingProxyType[str, Effect] = MappingProxyType({"ablation": ablation_effect})
