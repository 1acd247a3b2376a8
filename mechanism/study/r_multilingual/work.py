"""What page 10 passes through a model, counted before it runs."""

from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.passes import encode, room
from ...models.work import Work, padded
from ...trace import find_sites
from ..base.records import recorded, texts_hash
from ..base.texts import pivot_of
from .config import ChapterConfig
from .language_experts import task_texts
from .observe import read_all
from .routing import TASK_TEXTS


def routing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str, **options: Any
) -> list[Work]:
    """Work of `routing.study`, arguments as there; none where it is recorded.

    Raises:
        CorpusError: see `observe`.
    """
    sample = ChapterConfig.of(spec, **options)
    full = replace(sample, max_segments=None, n_boot=2000)
    corpora = full.corpora()
    if profile != "small" and recorded(full.key(spec, dtype), texts_hash(corpora)) is not None:
        return []
    config, most, tokens, widest = full if profile == "full" else sample, room(model), 0, (0, "", "")
    for corpus in corpora:
        each = read_all(tokenizer, corpus, config.routing(corpus), most).values()
        usable = [ids for ids, problem in each if not problem]
        tokens += sum(padded([len(own) + 1 for own in ids]) for ids in usable)
        widest = max(widest, (len(usable), corpus.name, pivot_of(corpus)), key=lambda one: one[0])
    count = min(config.max_segments or TASK_TEXTS, TASK_TEXTS)
    for texts in task_texts(widest[2], count, widest[1], config.seed).values():
        tokens += padded([len(own) for own in encode(tokenizer, texts, most)])
    layers, disk = len(find_sites(model)), 4 * widest[0] ** 2 * len(find_sites(model))
    return [Work("routes", float(tokens * layers), disk if profile == "full" else 0)]
