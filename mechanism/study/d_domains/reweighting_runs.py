"""Choice items and texts under re-weighted experts."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.tasks import ChoiceItem
from ...models.choices import EditedChoices
from ...models.scoring import score_text
from ...trace import InterventionError, ScaleWeight, attach
from .domain_text import Piece
from .reweighting_items import PROBLEMS
from .reweighting_plan import Setting
from .reweighting_sets import ExpertSets

Progress = Callable[[str], None]


class Run:
    """Passes over items and texts under settings.

    Args:
        sets: what the settings mean; progress: told what runs.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sets: ExpertSets, progress: Progress
    ) -> None:
        self.model, self.tokenizer, self.sets, self.progress = model, tokenizer, sets, progress
        self.scorer = EditedChoices(model, tokenizer)

    def choices(self, items: dict[str, list[ChoiceItem]], settings: Sequence[Setting], prefix: str) -> xr.Dataset:
        """`hit` and `margin` of every item under every setting, names with a prefix."""
        settings = list(dict.fromkeys(settings))
        hits, margins, labels, clusters = [], [], [], []
        for task, own in items.items():
            self.progress(f"{prefix or 'test '}{task}: {len(own)} items, {len(settings)} settings")
            edits = [self.sets.edit(setting, task) for setting in settings]
            scores = self._scores(own, edits, per_byte=task != PROBLEMS)
            true = np.eye(scores.shape[2], dtype=bool)[[item.answer for item in own]]
            rest = np.where(true, -np.inf, scores).max(-1)
            margins.append(scores[:, true] - rest)
            hits.append(margins[-1] > 0)
            labels += [task] * len(own)
            clusters += [item.cluster for item in own]
        at = (f"{prefix}setting", f"{prefix}item")
        data = {f"{prefix}hit": (at, np.concatenate(hits, 1)), f"{prefix}margin": (at, np.concatenate(margins, 1))}
        coords = {f"{prefix}task_of": (at[1], labels), f"{prefix}cluster": (at[1], clusters)}
        return xr.Dataset(data, coords | _described(settings, prefix))

    def _scores(self, items: Sequence[ChoiceItem], edits: Sequence[ScaleWeight | None], per_byte: bool) -> np.ndarray:
        """`(edit, item, choice)` log-probabilities, divided by the choice's UTF-8 length if `per_byte`."""
        found = self.scorer(items, edits)
        if found.refused:
            raise InterventionError(f"its experts cannot be re-weighted: {next(iter(found.refused.values()))}")
        size = np.array([[len(choice.encode()) for choice in item.choices] for item in items])
        return np.asarray(found.logprob / size if per_byte else found.logprob, np.float64)

    def texts(
        self, texts: Sequence[Piece], code: str, everywhere: Sequence[Setting], pivot: Sequence[Setting]
    ) -> xr.Dataset:
        """`nll` of texts under the settings `everywhere`, and under those of `pivot` in the language `code` alone; NaN
        elsewhere, and in domains that are no task."""
        settings = list(dict.fromkeys([*everywhere, *pivot]))
        jobs: dict[ScaleWeight | None, dict[int, list[int]]] = {}
        for i, piece in enumerate(texts):
            for row, setting in enumerate(settings):
                if piece.domain in self.sets.score and (piece.lang == code or setting in everywhere):
                    edit = self.sets.edit(setting, piece.domain)
                    jobs.setdefault(edit, {}).setdefault(i, []).append(row)
        nll = np.full((len(settings), len(texts)), np.nan)
        for number, (edit, wanted) in enumerate(jobs.items()):
            self.progress(f"text, setting {number + 1} of {len(jobs)}")
            with attach(self.model, [edit] if edit else [], keep=False):
                scores = score_text(self.model, self.tokenizer, [texts[i].text for i in wanted]).nll
            for (i, rows), score in zip(wanted.items(), scores, strict=True):
                nll[rows, i] = score
        coords = {
            f"text_{name}": ("text", [getattr(p, name) for p in texts]) for name in ("domain", "lang", "document")
        }
        size = np.array([len(piece.text.encode()) for piece in texts], dtype=np.float64)
        data = {"nll": (("text_setting", "text"), nll), "bytes": ("text", size)}
        return xr.Dataset(data, coords | _described(settings, "text_"))


def _described(settings: Sequence[Setting], prefix: str) -> dict[str, tuple]:
    at = f"{prefix}setting"
    return {f"{prefix}{name}": (at, [getattr(s, name) for s in settings]) for name in asdict(Setting())}
