"""A control that knows the answer beside claim R6: a router that is damaged for one language by a known offset, which
steering the task's expert must repair.

One expert alone adds anything to the hidden states: what leads to the right answer. Words that mark the task select it
in every language. For one language the offset keeps the router from it; a push as large brings it back.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus.tasks import ChoiceItem
from ...corpus.tokenizer import word_tokenizer
from ...measure.paired_gain import PairedGain
from ...trace.families import tiny_model
from .steering import steer
from .steering_plan import SteeringConfig
from .steering_results import SteeringResults
from .steering_tasks import SteeringTask

LANGUAGES = ("en", "de", "ru")
DAMAGED = LANGUAGES[-1]
ANSWERS = ("A", "B", "C", "D")
COMMON = [f"w{i}" for i in range(40)]
MARKS = {code: [f"{code}{i}" for i in range(40)] for code in LANGUAGES}
"""Words that mark the task, in each language."""
LAYER, EXPERT, ITEMS = 2, 5, 24
CASES = {0.0: False, 4.0: True, 12.0: False}
"""Offsets, and whether steering must raise accuracy: nothing to repair, within reach of a push, and beyond it."""
TRIED = SteeringConfig(
    taus=(0.3,), strengths=(1.0,), hard=False, windows=((1 / 3, 2 / 3),), draws=20, widths=(), doses=(-1.0, 1.0)
)


@cache
def repaired(offset: float, seed: int = 0) -> SteeringResults:
    """Steering of the planted model whose router is damaged by `offset`, in logits, for `DAMAGED`."""
    return SteeringResults(steer(*planted(offset, seed), TRIED), PairedGain())


def planted(offset: float, seed: int = 0) -> tuple[PreTrainedModel, PreTrainedTokenizerFast, SteeringTask]:
    """The planted model, its tokenizer, and the task that its expert serves."""
    tokenizer = word_tokenizer([*ANSWERS, *COMMON, *chain(*MARKS.values())])
    return damaged(tokenizer, offset, seed), tokenizer, _task(seed)


@torch.no_grad()
def damaged(tokenizer: PreTrainedTokenizerFast, offset: float, seed: int = 0) -> PreTrainedModel:
    """A tiny model of which one expert leads to answer A; see the head of this file."""
    model = tiny_model("qwen3_moe", seed, vocab_size=len(tokenizer))
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embedding[:, :3] = torch.tensor([1.0, 0.0, 0.0])
    for code, words in MARKS.items():
        rows = tokenizer.convert_tokens_to_ids(words)
        embedding[rows, 1], embedding[rows, 2] = 1.0, float(code == DAMAGED)
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.experts.down_proj.zero_()
        layer.mlp.gate.weight[:, :3] = 0  # what marks the task or a language moves no other expert
    block = model.model.layers[LAYER].mlp
    scale = float(_scale(embedding[tokenizer.convert_tokens_to_ids(MARKS[DAMAGED])]))
    block.gate.weight[EXPERT] = 0
    block.gate.weight[EXPERT, 0] = -2.0 / scale  # no other word selects it
    block.gate.weight[EXPERT, 1] = 6.0 / scale
    block.gate.weight[EXPERT, 2] = -offset / scale
    block.experts.gate_up_proj[EXPERT] = 0
    block.experts.gate_up_proj[EXPERT, :, 0] = 2.0
    right, *wrong = (head[i] for i in tokenizer.convert_tokens_to_ids(list(ANSWERS)))
    block.experts.down_proj[EXPERT, :, 0] = right - sum(wrong) / 3
    return model


def _scale(rows: torch.Tensor) -> torch.Tensor:
    """What the normalisation before the router makes of a one in these embeddings."""
    return (rows.pow(2).mean(1) + 1e-6).rsqrt().mean()


def _task(seed: int) -> SteeringTask:
    """Items whose context ends in a mark of the task; the right answer is always A."""
    rng = np.random.default_rng(seed)

    def say(words: Sequence[str], count: int) -> str:
        return " ".join(rng.choice(words, count))

    def side(name: str) -> dict[str, list[ChoiceItem]]:
        return {
            code: [
                ChoiceItem(f"{name}{i}", f"{name}{i}", f"{say(COMMON, 3)} {say(MARKS[code], 1)}", ANSWERS, 0)
                for i in range(ITEMS)
            ]
            for code in LANGUAGES
        }

    generic = {code: [say(COMMON, 8) for _ in range(20)] for code in LANGUAGES}
    texts = tuple(f"{say(COMMON, 2)} {say(MARKS['en'], 4)}" for _ in range(20))
    return SteeringTask("planted", "en", texts, generic, side("dev"), side("test"))
