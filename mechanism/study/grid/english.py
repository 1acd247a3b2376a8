"""English text for small models: a training stream, held-out windows, and the part of the vocabulary that they use."""

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus import library, mixture
from ...corpus.library import DOMAINS, committed
from ...corpus.mixture import Column, Mixture, MixtureConfig
from ...corpus.text import even
from ...models.passes import next_token_nll
from ...nn.train_config import TrainConfig
from ...nn.training import Trainer
from ...trace import RoutingStats, attach
from ..base import runs as training_runs

CORPORA = ("religion", "tech", *DOMAINS)
STREAM = MixtureConfig(bilingual=0.0, problems=0.0, languages=("en",))
SPLITS = ("dev", "test")
Document = tuple[str, str, np.ndarray]  # corpus, name, the tokenizer's ids behind an end-of-text token
Columns = dict[tuple[str, str], Column]


@dataclass(frozen=True)
class TextConfig:
    """What is read and scored: tokens of a window, and windows of a corpus and split at most, evenly over documents."""

    length: int = 128
    dev_windows: int = 64
    test_windows: int = 256


@dataclass
class Windows:
    """Windows of held-out text.

    Attributes:
        ids: `(window, length + 1)`, filled up with 0; sizes: `(window,)` tokens that are scored, the first one never.
        document: `(window,)` row of `documents`; documents: (corpus, document) names.
    """

    ids: np.ndarray
    sizes: np.ndarray
    document: np.ndarray
    documents: list[tuple[str, str]]


class English:
    """The committed English text, in ids of a vocabulary that holds only what occurs in it.

    Args:
        config: windows.
        tokenizer: the report's; most of its vocabulary serves other languages, and a small model would spend most of
            its operations on output scores of tokens that never occur.

    Attributes:
        vocabulary: `(token,)` the tokenizer's ids, ascending; the end-of-text token is number 0.
        windows: of the splits `dev` and `test`.
    """

    def __init__(self, config: TextConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        self.config, self.tokenizer = config, tokenizer
        columns, held = english_tokens(tokenizer)
        self.mixture = Mixture(STREAM, tokenizer, columns)
        parts = [column.tokens for column in columns.values()] + [ids for part in held.values() for _, _, ids in part]
        self.vocabulary = np.unique(np.concatenate([*parts, [tokenizer.eos_token_id]]))
        self._place = np.full(len(tokenizer), -1)
        self._place[self.vocabulary] = np.arange(len(self.vocabulary))
        caps = {"dev": config.dev_windows, "test": config.test_windows}
        self.windows = {split: self._windows(held[split], caps[split]) for split in held}

    def batch(self, config: TrainConfig, step: int) -> np.ndarray:
        """Ids `(batch, length + 1)` of a training step, a function of the run's seed and the step alone."""
        return self._place[self.mixture.batch(config.seed, step, config.batch, config.length)]

    def trainer(self, config: TrainConfig, folder: Path) -> Trainer:
        """A trainer on this text."""
        return Trainer(config, partial(self.batch, config), folder)

    def encode(self, text: str) -> np.ndarray:
        """Ids of a text behind an end-of-text token.

        Raises:
            ValueError: a token that does not occur in the committed English text.
        """
        ids = self._place[[self.tokenizer.eos_token_id, *self.tokenizer(text)["input_ids"]]]
        if (ids < 0).any():
            raise ValueError(f"{text!r} has a token that does not occur in the English text; use other words")
        return ids

    def tokens(self, ids: np.ndarray) -> list[str]:
        """Each id as text."""
        return [self.tokenizer.decode([int(i)]) for i in self.vocabulary[ids]]

    def _windows(self, held: list[Document], cap: int) -> Windows:
        """Cut documents so that every token but the first is scored once; keep `cap` windows a corpus."""
        length, documents = self.config.length, [(name, group) for name, group, _ in held]
        cut: dict[str, list[tuple[int, np.ndarray]]] = {}
        for number, (name, _, ids) in enumerate(held):
            own = self._place[ids]
            cut.setdefault(name, []).extend(
                (number, own[start : start + length + 1]) for start in range(0, len(own) - 1, length)
            )
        kept = [window for found in cut.values() for window in even(found, cap)]
        filled = np.stack([np.pad(ids, (0, length + 1 - len(ids))) for _, ids in kept])
        sizes, document = np.array([len(ids) - 1 for _, ids in kept]), np.array([number for number, _ in kept])
        return Windows(filled, sizes, document, documents)


def english_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[Columns, dict[str, list[Document]]]:
    """Training columns and held-out documents; read once, then from the cache."""
    path = training_runs.cache_folder() / "english" / f"{_address(tokenizer)}.joblib"
    if not path.exists():
        columns = Mixture(STREAM, tokenizer).columns
        held = {split: list(_held_out(tokenizer, split)) for split in SPLITS}
        path.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(({(name, "en"): columns[name, "en"] for name in CORPORA}, held), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return joblib.load(path)


def _address(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hash of the data, of the tokenizer and of the code that reads them."""
    code = [Path(str(file)).read_bytes() for file in (mixture.__file__, library.__file__, __file__)]
    read = training_runs.data_hash() + tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(read.encode() + b"".join(code)).hexdigest()[:16]


def _held_out(tokenizer: PreTrainedTokenizerFast, split: str) -> Iterator[Document]:
    for name in CORPORA:
        corpus = committed(name)
        groups = corpus.groups(split)
        texts = [corpus.joiner.join(corpus.texts("en", rows)) for rows in groups.values()]
        for group, encoded in zip(groups, tokenizer.backend_tokenizer.encode_batch(texts), strict=True):
            yield name, group, np.array([tokenizer.eos_token_id, *encoded.ids])


@torch.no_grad()
def score(model: PreTrainedModel, windows: Windows, stats: RoutingStats | None = None, batch: int = 32) -> pd.DataFrame:
    """Score held-out windows: of each document `corpus`, `document`, scored `tokens`, and their summed negative
    log-likelihood in nats, `nll`.

    Args:
        stats: counts routing under groups named like the corpora; None for a dense model.
    """
    model.eval()
    nll, tokens = np.zeros(len(windows.documents)), np.zeros(len(windows.documents), dtype=int)
    with attach(model, stats=stats, keep=False) if stats else nullcontext() as trace:
        for start in range(0, len(windows.ids), batch):
            rows = slice(start, start + batch)
            if trace:
                trace.label([windows.documents[d][0] for d in windows.document[rows]])
            np.add.at(nll, windows.document[rows], _window_nll(model, windows, rows))
    np.add.at(tokens, windows.document, windows.sizes)
    table = pd.DataFrame(windows.documents, columns=["corpus", "document"]).assign(tokens=tokens, nll=nll)
    return table[table["tokens"] > 0].reset_index(drop=True)


def mean_loss(table: pd.DataFrame) -> float:
    """Nats per token over all documents of a `score`."""
    return float(table["nll"].to_numpy().sum() / table["tokens"].sum())


def _window_nll(model: PreTrainedModel, windows: Windows, rows: slice) -> np.ndarray:
    ids, sizes = (torch.as_tensor(part[rows]).to(model.device) for part in (windows.ids, windows.sizes))
    mask = (torch.arange(ids.shape[1], device=ids.device) <= sizes[:, None]).long()
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return (next_token_nll(logits, ids) * mask[:, 1:]).sum(1, dtype=torch.float64).cpu().numpy()
