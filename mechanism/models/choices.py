"""Choice items under many interventions on routing.

Contexts are run once for all their choices, and what lies below an edit is run once for all edits. Both are exact for
most models and are checked against plain passes on a few items; a model that they do not suit gets plain passes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..corpus.tasks import ChoiceItem
from ..trace import Intervention, InterventionError, SoftSteer, Trace, attach, find_sites
from .passes import batches_by_length, padding_token, room
from .scoring import WINDOW, choice_logprobs, encode_choices
from .shared_prefix import ChoiceBatch, SharedPasses
from .work import padded

Edit = Intervention | tuple[Intervention, ...] | None
Edits = Sequence[Edit]
PROBED = 4
FAST = "contexts shared by their choices, passes from the first edited layer on; equal to plain passes on a few items"
SLOW = "plain passes: {}"
# Largest difference between the two ways, in nats; in half precision 0.2.
TOLERANCE = {torch.float32: 2e-3, torch.float64: 1e-6}


@dataclass
class ChoiceScores:
    """Scores of choices.

    Attributes:
        logprob: `(edit, item, choice)` total log-probability in nats; NaN for a refused edit.
        moved: `(edit,)` routing weight that the edit moves per token, mean over the layers it acts on: half the summed
            absolute difference of the weights; 0 without an edit, NaN for a refused one.
        refused: edits that the model's routers cannot carry out, with the reason.
        note: how the passes were run.
    """

    logprob: np.ndarray
    moved: np.ndarray
    refused: dict[Edit, str]
    note: str


class EditedChoices:
    """Scores of choice items under interventions on routing, one at a time or several at once.

    Args:
        chat: contexts are rendered chats, so no end-of-text token opens them.
        max_tokens: about how many tokens of contexts and choices a batch holds.
        seed: breaks ties of `Activate` and `Deactivate`.

    Attributes:
        note: how passes are run, known after the first call; refused: edits refused so far, with the reason.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        chat: bool = False,
        max_tokens: int = 8192,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer, self.chat, self.max_tokens, self.seed = model, tokenizer, chat, max_tokens, seed
        self.pad_id = padding_token(tokenizer)
        self.passes = SharedPasses(model)
        self.note: str | None = None
        self.refused: dict[Edit, str] = {}

    @torch.no_grad()
    def __call__(self, items: Sequence[ChoiceItem], edits: Edits) -> ChoiceScores:
        """Scores of every item under every edit: an intervention, several at once, or None for none. Edits that are
        alike are run once.

        Raises:
            ValueError: no items, or items with different numbers of choices.
        """
        if len({len(item.choices) for item in items}) != 1:
            raise ValueError("choice items need to be there, and to have the same number of choices")
        encoded = self._encoded(items)
        contexts, choices = zip(*encoded, strict=True)
        rows = {edit: row for row, edit in enumerate(dict.fromkeys(edits))}
        logprob = np.full((len(rows), len(items), len(items[0].choices)), np.nan, dtype=np.float32)
        weight, tokens = np.zeros((2, len(rows)))
        if self.note is None:
            probed = slice(None, None, -(-len(items) // PROBED))
            self.note = self._prove(contexts[probed], choices[probed])
        for batch in self._batches(encoded):
            for edit, values, moved in self._passes([contexts[i] for i in batch], [choices[i] for i in batch], rows):
                logprob[rows[edit], batch] = values
                if moved is not None:
                    weight[rows[edit]] += (moved["tokens"] * moved["weight_moved"]).sum()
                    tokens[rows[edit]] += moved["tokens"].sum()
        for edit in self.refused.keys() & rows.keys():
            logprob[rows[edit]] = weight[rows[edit]] = np.nan
        wanted = [rows[edit] for edit in edits]
        return ChoiceScores(logprob[wanted], (weight / np.maximum(tokens, 1))[wanted], self.refused, self.note)

    def tokens(self, items: Sequence[ChoiceItem]) -> int:
        """Tokens, padding counted, that these items take under one edit in the first layer; at most."""
        if self.note is None:
            self(items[:PROBED], [None])
        encoded = self._encoded(items)
        if not self.fast:
            return padded([len(context) + len(choice) for context, own in encoded for choice in own])
        found = 0
        for rows in self._batches(encoded):
            contexts, choices = zip(*(encoded[i] for i in rows), strict=True)
            batch = ChoiceBatch.of(contexts, choices, self.pad_id)
            found += batch.ids.numel() + batch.tail.numel()
        return found

    def _encoded(self, items: Sequence[ChoiceItem]) -> list[tuple[list[int], list[list[int]]]]:
        window = min(WINDOW, room(self.model) + 1)
        return [encode_choices(self.tokenizer, item, not self.chat, window) for item in items]

    def _batches(self, encoded: Sequence[tuple[list[int], list[list[int]]]]) -> list[list[int]]:
        sizes = [len(context) + sum(len(choice) - 1 for choice in own) for context, own in encoded]
        return batches_by_length([range(size) for size in sizes], self.max_tokens)

    @property
    def fast(self) -> bool:
        """Whether contexts are shared and passes start at the first edited layer."""
        return self.note == FAST

    def _passes(self, contexts: Any, choices: Any, edits: Iterable[Edit]) -> Iterator[tuple]:
        """A batch under one edit after the other: the edit, log-probabilities and routing that it moved; those that the
        routers refuse are noted instead."""
        edits = [edit for edit in edits if edit not in self.refused]
        run = self._shared(contexts, choices, edits) if self.fast else lambda edit: self._whole(contexts, choices)
        for edit in edits:
            if edit is None:
                yield None, run(None).numpy(), None
                continue
            try:
                with self._attached(edit, self.fast) as trace:
                    values = run(edit)
            except InterventionError as error:
                self.refused[edit] = str(error)
            else:
                yield edit, values.numpy(), trace.changes()

    def _shared(self, contexts: Any, choices: Any, edits: Edits) -> Callable[[Edit], Tensor]:
        """What runs a batch under one edit, after the passes that all edits share."""
        batch = ChoiceBatch.of(contexts, choices, self.pad_id).to(self.model.device)
        plain, below = self.passes.plain(batch, {_start(edit) for edit in edits if edit is not None})
        return lambda edit: plain if edit is None else self.passes.edited(batch, _start(edit), below)

    def _attached(self, edit: Edit, from_start: bool) -> Trace:
        return attach(
            self.model, interventions(edit), keep=False, seed=self.seed, first=_start(edit) if from_start else 0
        )

    def _whole(self, contexts: Any, choices: Any) -> Tensor:
        """Plain passes over every context with every choice."""
        return torch.from_numpy(choice_logprobs(self.model, contexts, choices, self.pad_id))

    def _prove(self, contexts: Any, choices: Any) -> str:
        """Both ways on a few items, without and with an edit in the middle of the stack: how passes can be run."""
        sites = find_sites(self.model)
        edit = SoftSteer(((sites[len(sites) // 2].layer, 0),), strength=1.0)
        try:
            run = self._shared(contexts, choices, [edit])
            plain = run(None)
            with self._attached(edit, from_start=True):
                edited = run(edit)
        except InterventionError:
            return SLOW.format("it refuses to be steered")
        except Exception as error:
            return SLOW.format(f"{type(error).__name__} with a shared cache")
        expected = [self._whole(contexts, choices)]
        with self._attached(edit, from_start=False):
            expected.append(self._whole(contexts, choices))
        tolerance = TOLERANCE.get(self.model.dtype, 0.2)
        apart = max(float((a - b).abs().max()) for a, b in zip((plain, edited), expected, strict=True))
        return FAST if apart <= tolerance else SLOW.format(f"a shared cache changes scores by {apart:.2g} nats")


def timed_choices(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Callable[[], object]:
    """Choices under an edit in the first layer, as it takes the longest, ready to be timed."""
    scorer, first = EditedChoices(model, tokenizer), find_sites(model)[0].layer
    choices = tuple(text[:60] for text in texts[:4]) * (4 if len(texts) < 4 else 1)
    items = [ChoiceItem(str(i), str(i), text[:200], choices[:4], 0) for i, text in enumerate(texts)]
    scorer(items[:PROBED], [None])
    return lambda: scorer(items, [SoftSteer(((first, 0),), strength=0.5)])


def interventions(edit: Edit) -> list[Intervention]:
    """What an edit consists of."""
    return [edit] if isinstance(edit, Intervention) else list(edit or ())


def _start(edit: Edit) -> int:
    return min(layer for one in interventions(edit) for layer, _ in one.targets)
