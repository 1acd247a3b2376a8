"""Chapter R's study of routing: from a model and parallel text to every table of the chapter."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.load import training_run
from ...models.passes import encode, room
from ...models.segments import segment_pass
from ...models.work import Work, padded
from ...trace import find_sites
from ..base.records import recorded, texts_hash
from ..base.study import Study
from ..base.texts import pivot_of
from .config import ChapterConfig
from .language_experts import task_texts
from .observe import frequency, observe, read_all
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


def work(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str, **options: Any
) -> list[Work]:
    """Work of `study`, arguments as there; none where it is recorded.

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
