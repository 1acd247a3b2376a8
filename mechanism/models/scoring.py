"""Scores of a causal language model: running text, choices, greedy answers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..corpus.tasks import ChoiceItem
from .passes import batches_by_length, next_token_nll, opening_token, pad_left, padded_batches

WINDOW = 256


@dataclass
class TextScore:
    """Per document: negative log-likelihood in nats, tokens and UTF-8 bytes."""

    nll: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    @property
    def bits_per_byte(self) -> float:
        return float(self.nll.sum() / np.log(2) / self.bytes.sum())


def token_logprobs(model: PreTrainedModel, sequences: Sequence[Sequence[int]], pad_id: int) -> list[np.ndarray]:
    """Log-probability of each token of each sequence given those before it; the first token has none."""
    found: list[np.ndarray] = [np.empty(0)] * len(sequences)
    with torch.no_grad():
        for batch, ids, mask in padded_batches(model, sequences, pad_id):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            scores = -next_token_nll(logits, ids)
            for row, i in enumerate(batch):
                found[i] = scores[row, : len(sequences[i]) - 1].cpu().numpy()
    return found


def score_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]) -> TextScore:
    """Score documents of any length in windows of 256 tokens that overlap by half: every token but a document's first
    half window has at least 128 tokens before it. Each document begins with the token that opens a sequence."""
    windows: list[list[int]] = []
    owners: list[tuple[int, int]] = []  # document, tokens of the window already scored before it
    lengths = []
    for number, text in enumerate(documents):
        ids = [opening_token(tokenizer), *_ids(tokenizer, text)]
        lengths.append(len(ids) - 1)
        for start in range(0, max(len(ids) - WINDOW // 2, 1), WINDOW // 2):
            windows.append(ids[start : start + WINDOW])
            owners.append((number, 0 if start == 0 else WINDOW // 2 - 1))
    nll = np.zeros(len(documents))
    for (number, skip), scores in zip(owners, token_logprobs(model, windows, tokenizer.pad_token_id), strict=True):
        nll[number] -= scores[skip:].sum(dtype=np.float64)
    size = np.array([len(text.encode()) for text in documents], dtype=np.float64)
    return TextScore(nll, np.array(lengths), size)


def token_counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    """Counts the tokens of a text, without any that opens it."""
    return lambda text: len(_ids(tokenizer, text))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_choices(
    tokenizer: PreTrainedTokenizerBase, item: ChoiceItem, opened: bool = True, window: int = WINDOW
) -> tuple[list[int], list[list[int]]]:
    """Token ids of an item's context, if `opened` behind the token that opens a text, and of its choices; the context
    loses its beginning where it and the longest choice do not fit into the window."""
    choices = [_ids(tokenizer, choice)[:window] for choice in item.choices]
    context = [*([opening_token(tokenizer)] if opened else []), *_ids(tokenizer, item.context)]
    return context[-max(window - max(map(len, choices)), 1) :], choices


def choice_logprobs(
    model: PreTrainedModel,
    contexts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
) -> np.ndarray:
    """`(item, choice)` total log-probability of each choice behind its context."""
    pairs = [(context, choice) for context, own in zip(contexts, choices, strict=True) for choice in own]
    logprobs = token_logprobs(model, [[*context, *choice] for context, choice in pairs], pad_id)
    totals = [lp[len(context) - 1 :].sum() for lp, (context, _) in zip(logprobs, pairs, strict=True)]
    return np.array(totals).reshape(len(contexts), -1)


def score_choices(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[ChoiceItem], per_byte: bool
) -> np.ndarray:
    """Whether the true choice has the highest log-likelihood, per item.

    Args:
        per_byte: divide by the choice's UTF-8 length; for choices of equal token count leave it off.
    """
    context, choices = zip(*(encode_choices(tokenizer, item) for item in items), strict=True)
    return judged(items, choice_logprobs(model, context, choices, tokenizer.pad_token_id), per_byte)[0]


def judged(
    items: Sequence[ChoiceItem], logprob: np.ndarray, per_byte: bool | Sequence[bool]
) -> tuple[np.ndarray, np.ndarray]:
    """Whether the true choice scores highest, and its margin, from log-probabilities `(*edit, item, choice)`; both
    `(*edit, item)` and NaN where a log-probability is.

    Args:
        per_byte: divide by the choice's UTF-8 length, in all items or item by item.
    """
    size = np.array([[max(len(choice.encode()), 1) for choice in item.choices] for item in items])
    scores = logprob.astype(np.float64) / np.where(np.broadcast_to(per_byte, len(items))[:, None], size, 1)
    answer = np.array([item.answer for item in items])
    hits = np.nan_to_num(scores).argmax(-1) == answer
    return np.where(np.isnan(scores).any(-1), np.nan, hits), margin(scores, answer)


def margin(scores: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Log-odds of the true choice among all, in nats: its score minus the logarithm of the sum of the others'
    exponentials. It is above 0 where the true choice has more than half of the probability.

    Args:
        scores: log-probabilities `(*edit, item, choice)`; answer: index of the true choice `(item,)`.
    """
    true = np.arange(scores.shape[-1]) == answer[:, None]
    right, others = np.where(true, scores, 0).sum(-1), np.where(true, -np.inf, scores)
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return right - np.logaddexp.reduce(others, -1)


@contextmanager
def plain_decoding(model: PreTrainedModel) -> Iterator[None]:
    """Generation without the checkpoint's own settings, but for its special tokens."""
    own = model.generation_config
    kept = {name: getattr(own, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**kept)
    try:
        yield
    finally:
        model.generation_config = own


def exact_match(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[ChoiceItem]) -> np.ndarray:
    """Whether greedy decoding up to the end of the line gives the true answer, per item; what the checkpoint says of
    decoding, such as a penalty on repetition, does not apply."""
    room = 2 + max(len(_ids(tokenizer, c)) for item in items for c in item.choices)
    hits = np.zeros(len(items))
    prompts = [[opening_token(tokenizer), *_ids(tokenizer, i.context)] for i in items]
    for batch in batches_by_length(prompts):
        ids, mask = pad_left([prompts[i] for i in batch], tokenizer.pad_token_id)
        with plain_decoding(model):
            out = model.generate(
                input_ids=ids.to(model.device), attention_mask=mask.to(model.device), max_new_tokens=room,
                do_sample=False, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        for row, i in enumerate(batch):
            line = tokenizer.decode(out[row, ids.shape[1] :], skip_special_tokens=True).split("\n")[0]
            hits[i] = line.strip() == items[i].choices[items[i].answer].strip()
    return hits
