"""Choice items and texts under re-weighted experts."""

from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..corpus.tasks import ChoiceItem
from ..trace import ScaleWeight, attach
from .domain_text import Piece
from .reweighting_items import PROBLEMS
from .reweighting_plan import Setting
from .reweighting_sets import ExpertSets
from .scoring import choice_logprobs, encode_choices, score_text

Progress = Callable[[str], None]


def choice_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[ChoiceItem],
    edits: Sequence[ScaleWeight | None],
) -> np.ndarray:
    """`(edit, item, choice)` log-probability of each choice; edits that are alike are run once."""
    contexts, choices = zip(*(encode_choices(tokenizer, item) for item in items), strict=True)
    found = {}
    for edit in dict.fromkeys(edits):
        with attach(model, [edit] if edit else [], keep=False):
            found[edit] = choice_logprobs(model, contexts, choices, tokenizer.pad_token_id)
    return np.stack([found[edit] for edit in edits])


class Run:
    """Passes over items and texts under settings.

    Args:
        sets: what the settings mean; progress: told what runs.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sets: ExpertSets, progress: Progress
    ) -> None:
        self.model, self.tokenizer, self.sets, self.progress = model, tokenizer, sets, progress

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
        scores = choice_scores(self.model, self.tokenizer, items, edits)
        size = np.array([[len(choice.encode()) for choice in item.choices] for item in items])
        return np.asarray(scores / size if per_byte else scores, np.float64)

    def texts(self, texts: Sequence[Piece], code: str, settings: Sequence[Setting]) -> xr.Dataset:
        """`nll` of every text under the settings that apply: to the pivot language's all, to others' those of its own
        domain and of drivers."""
        settings = list(dict.fromkeys(settings))
        nll = np.full((len(settings), len(texts)), np.nan)
        size = np.array([len(piece.text.encode()) for piece in texts], dtype=np.float64)
        for domain, lang in dict.fromkeys((piece.domain, piece.lang) for piece in texts):
            at = [i for i, piece in enumerate(texts) if (piece.domain, piece.lang) == (domain, lang)]
            self.progress(f"text {domain} {lang}")
            done: dict[ScaleWeight | None, np.ndarray] = {}
            for row, setting in enumerate(settings):
                if domain not in self.sets.score or (lang != code and (setting.draw >= 0 or setting.of)):
                    continue
                edit = self.sets.edit(setting, domain)
                if edit not in done:
                    with attach(self.model, [edit] if edit else [], keep=False):
                        done[edit] = score_text(self.model, self.tokenizer, [texts[i].text for i in at]).nll
                nll[row, at] = done[edit]
        coords = {
            f"text_{name}": ("text", [getattr(p, name) for p in texts]) for name in ("domain", "lang", "document")
        }
        data = {"nll": (("text_setting", "text"), nll), "bytes": ("text", size)}
        return xr.Dataset(data, coords | _described(settings, "text_"))


def _described(settings: Sequence[Setting], prefix: str) -> dict[str, tuple]:
    at = f"{prefix}setting"
    return {f"{prefix}{name}": (at, [getattr(s, name) for s in settings]) for name in asdict(Setting())}
