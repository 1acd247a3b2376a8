"""Chapter R, observed: from a model and its texts to every table of the chapter."""

from collections.abc import Callable
from dataclasses import replace

import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..base.records import recorded, stored, texts_hash
from .chapter import Chapter
from .config import ChapterConfig
from .language_experts import task_frequencies, task_texts
from .observe import observe

TASK_TEXTS = 200
PROFILES = ("small", "full")


def run(
    spec: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: ChapterConfig,
    dtype: str = "float32",
    profile: str = "small",
    progress: Callable[[str], None] = lambda line: None,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Tables to show, and tables to judge claims by: those of all segments wherever they are recorded.

    Args:
        spec, dtype: of the model, for the address of the record.
        profile: `small` computes on up to `max_segments` of each corpus; `full` on all of them, once, and keeps the
            result in `data/runs`.

    Raises:
        ValueError: no such profile; otherwise see `analyse` and `records.stored`.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: there are {' and '.join(PROFILES)}")
    whole = replace(config, max_segments=None, n_boot=2000)
    key, texts = whole.key(spec, dtype), texts_hash(whole.corpora())
    if profile == "full":
        command = f"mechanism notebooks --only 10 --parameter model={spec} --parameter profile=full"
        found = stored(key, texts, lambda: analyse(model, tokenizer, whole, progress), command)
        return found, found
    shown = analyse(model, tokenizer, config, progress)
    judged = recorded(key, texts)
    return shown, shown if judged is None else judged


def analyse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: ChapterConfig,
    progress: Callable[[str], None] = lambda line: None,
) -> xr.Dataset:
    """Observe a model and compute everything that the chapter shows; see `Chapter.dataset`.

    Raises:
        CorpusError, ModelError: see `observe`. ValueError: fewer than three layers that route.
    """
    corpora = config.corpora()
    parts = [observe(model, tokenizer, corpus, config.routing(corpus), progress) for corpus in corpora]
    wide = max(parts, key=lambda part: part.sizes["lang"])
    count = min(config.max_segments or TASK_TEXTS, TASK_TEXTS)
    texts = task_texts(wide.attrs["pivot"], count, wide.attrs["corpus"], config.seed)
    return Chapter(parts, task_frequencies(model, tokenizer, texts), config).dataset()
