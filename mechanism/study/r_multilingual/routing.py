"""Chapter R's study of routing: from a model and parallel text to every table of the chapter."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.load import training_run
from ...models.segments import segment_pass
from ..base.records import texts_hash
from ..base.study import Study
from .config import ChapterConfig
from .language_experts import task_texts
from .observe import frequency, observe
from .tables import Chapter

TASK_TEXTS = 200


def study(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    dtype: str = "float32",
    profile: str = "auto",
    progress: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> xr.Dataset:
    """What the chapter shows of a model (see `Chapter.dataset`), on all segments or on a sample of them.

    Args:
        spec, dtype: of the model, for the address of the record.
        profile: see `PROFILES`; options: of `ChapterConfig.of`, of which `max_segments` is the size of the sample.

    Returns:
        In its attributes also `run`, which made the model, `seed`, and `awaits`, see `Study`.

    Raises:
        ValueError: no such profile; otherwise see `analyse` and `records.stored`.
    """
    sample = ChapterConfig.of(spec, **options)
    full, made = replace(sample, max_segments=None, n_boot=2000), {"run": training_run(spec) or ""}
    asked = Study(
        full.key(spec, dtype),
        texts_hash(full.corpora()),
        lambda: analyse(model, tokenizer, full, progress).assign_attrs(made),
        lambda: analyse(model, tokenizer, sample, progress).assign_attrs(made),
        f"mechanism notebooks --only 10 --parameter model={spec} --parameter profile=full",
    )
    found = asked.result(profile)
    return found.assign_attrs(made, seed=sample.seed, awaits=asked.awaits(found))


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
    tasks = {name: frequency(segment_pass(model, tokenizer, own, hidden=False)) for name, own in texts.items()}
    return Chapter(parts, tasks, config).dataset()
