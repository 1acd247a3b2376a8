"""English text for small models: a training stream, held-out windows, and the part of the vocabulary that they use."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus import library, mixture
from ...corpus.library import DOMAINS, committed
from ...corpus.mixture import Column, Mixture, MixtureConfig
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
    """What is read and scored.

    Attributes:
        length: tokens of a window.
        dev_windows, test_windows: windows per corpus and split at most, evenly over its documents.
    """

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


@dataclass
class Score:
    """Per document: summed negative log-likelihood in nats, and scored tokens."""

    nll: np.ndarray
    tokens: np.ndarray
    documents: list[tuple[str, str]]

    @property
    def loss(self) -> float:
        """Nats per token over all documents."""
        return float(self.nll.sum() / self.tokens.sum())


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
        kept = [found[i] for found in cut.values() for i in _even(len(found), cap)]
        filled = np.stack([np.pad(ids, (0, length + 1 - len(ids))) for _, ids in kept])
        sizes, document = np.array([len(ids) - 1 for _, ids in kept]), np.array([number for number, _ in kept])
        return Windows(filled, sizes, document, documents)


def english_tokens(tokenizer: PreTrainedTokenizerFast) -> tuple[Columns, dict[str, list[Document]]]:
    """Training columns and held-out documents; read once, then from the cache."""
    path = training_runs.cache_folder() / "english" / f"{_address(tokenizer)}.npz"
    if not path.exists():
        columns = Mixture(STREAM, tokenizer).columns
        held = {split: list(_held_out(tokenizer, split)) for split in SPLITS}
        _write(path, columns, held)
    with np.load(path) as file:
        return _read(file)


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


def _write(path: Path, columns: Columns, held: Mapping[str, list[Document]]) -> None:
    arrays = {f"{name}/{key}": value for (name, _), column in columns.items() for key, value in vars(column).items()}
    for split, documents in held.items():
        names, groups, ids = zip(*documents, strict=True)
        arrays |= {f"{split}/names": np.array(names), f"{split}/groups": np.array(groups)}
        arrays |= {f"{split}/ids": np.concatenate(ids), f"{split}/ends": np.cumsum([len(i) for i in ids])[:-1]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    temporary.replace(path)


def _read(file: Mapping[str, np.ndarray]) -> tuple[Columns, dict[str, list[Document]]]:
    keys = [field.name for field in fields(Column)]
    columns = {(name, "en"): Column(**{key: file[f"{name}/{key}"] for key in keys}) for name in CORPORA}
    held: dict[str, list[Document]] = {}
    for split in SPLITS:
        ids = np.split(file[f"{split}/ids"], file[f"{split}/ends"])
        names, groups = (file[f"{split}/{key}"].tolist() for key in ("names", "groups"))
        held[split] = list(zip(names, groups, ids, strict=True))
    return columns, held


def _even(count: int, cap: int) -> np.ndarray:
    """At most `cap` of `count` places, evenly spread."""
    return np.arange(count) if count <= cap else np.linspace(0, count - 1, cap).round().astype(int)


@torch.no_grad()
def score(model: PreTrainedModel, windows: Windows, stats: RoutingStats | None = None, batch: int = 32) -> Score:
    """Score held-out windows.

    Args:
        stats: counts routing under groups named like the corpora; None for a dense model.
    """
    model.eval()
    nll, tokens = np.zeros(len(windows.documents)), np.zeros(len(windows.documents))
    if stats is None:
        _score(model, windows, batch, nll, lambda names: None)
    else:
        with attach(model, stats=stats, keep=False) as trace:
            _score(model, windows, batch, nll, trace.label)
    np.add.at(tokens, windows.document, windows.sizes)
    seen = tokens > 0
    return Score(nll[seen], tokens[seen], [d for d, there in zip(windows.documents, seen, strict=True) if there])


def _score(model: PreTrainedModel, windows: Windows, batch: int, nll: np.ndarray, label) -> None:
    for start in range(0, len(windows.ids), batch):
        rows = slice(start, start + batch)
        ids, sizes = (torch.as_tensor(part[rows]).to(model.device) for part in (windows.ids, windows.sizes))
        label([windows.documents[d][0] for d in windows.document[rows]])
        mask = (torch.arange(ids.shape[1], device=ids.device) <= sizes[:, None]).long()
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        scores = next_token_nll(logits, ids) * mask[:, 1:]
        np.add.at(nll, windows.document[rows], scores.sum(1, dtype=torch.float64).cpu().numpy())
