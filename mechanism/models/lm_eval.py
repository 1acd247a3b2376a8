"""lm-evaluation-harness (`lm_eval`, the extra `lm-eval`): its command with our model in it, and local tasks for it."""

import importlib.util
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path

import yaml

from ..corpus.library import load
from ..corpus.store import CorpusError
from ..corpus.tasks import next_segment
from .load import ModelError

OWN = ("pretrained", "edits", "device", "dtype", "seed")
"""Arguments of `lm_eval_model.EditedLM` itself; a revision is part of `pretrained`."""
TAKEN = (
    "backend", "truncation", "logits_cache", "max_length", "softmax_dtype", "mixed_precision_dtype", "batch_size",
    "max_batch_size", "add_bos_token", "prefix_token_id", "think_end_token", "enable_thinking", "chat_template_args",
)  # fmt: skip
"""Those of the harness's `HFLM` that act on a model which is loaded already."""


def main(arguments: Sequence[str]) -> None:
    """Run `lm-eval ARGUMENTS` with the model `mechanism` registered; the harness looks for no models of others itself.

    Raises:
        ModelError: the harness is not installed.
    """
    missing = [name for name in ("lm_eval", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f"{' and '.join(missing)} not installed: pip install 'mechanism[lm-eval]'")
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()


def refuse_unknown(given: Iterable[str]) -> None:
    """Refuse arguments of the harness's model that would do nothing: it is handed a model that is loaded already.

    Raises:
        ModelError: one of them is not among `TAKEN`, or belongs to loading.
    """
    if strange := sorted(set(given) - set(TAKEN)):
        near = get_close_matches(strange[0], [*OWN, *TAKEN], 1)
        meant = f"; did you mean {near[0]}?" if near else f"; known are {', '.join((*OWN, *TAKEN))}"
        raise ModelError(f"the model has no argument {strange[0]!r}: it would do nothing{meant}")


def write_tasks(folder: Path, data: str, languages: Sequence[str], split: str, max_items: int) -> list[str]:
    """Write next-segment choice as tasks of the harness: a file of items and a task file per language.

    Args:
        data: corpus, see `load`; split: `test` or `dev`; max_items: evenly spaced, per language.

    Returns the names of the tasks.

    Raises:
        CorpusError: no such corpus or language, or no document long enough for an item.
    """
    corpus = load(data, tuple(languages))
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for code in languages:
        if code not in corpus.columns:
            raise CorpusError(f"no {code} in {corpus.name}; there are {' '.join(corpus.languages)}")
        items = next_segment(corpus, code, split, limit=max_items)
        if not items:
            raise CorpusError(f"{corpus.name} has no {split} document in {code} that is long enough for an item")
        name = f"next_segment_{corpus.name}_{code}".replace("/", "_")
        lines = (json.dumps(asdict(item), ensure_ascii=False) for item in items)
        path = folder.resolve() / f"{name}.jsonl"
        path.write_text("\n".join(lines) + "\n", "utf-8")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(_task(name, path), sort_keys=False), "utf-8")
        names.append(name)
    return names


def _task(name: str, items: Path) -> dict:
    metrics = ("acc", "acc_norm")
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(items)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics],
        "metadata": {"version": 1},
    }
