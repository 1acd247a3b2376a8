"""Clone languages: English with its token ids permuted into a range of their own. Grammar, length and data are ours to
set, and every text exists in every language, so that what differs between two languages is known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from .mixture import Column, Mixture, MixtureConfig

KEY = "en"
SEED = 20_251_004
"""Of the permutations and of which ids are shared: languages are the same in every run."""


@dataclass(frozen=True)
class CloneConfig:
    """The languages and what is read in them.

    Attributes:
        shares: of language k's documents among all, in proportion: English first, then its clones; 0 for a language
            that is never read.
        bilingual: share of documents that alternate English and a clone, row by row.
        shared: share of ids that all languages have in common, besides the end-of-text token.

    Raises:
        ValueError: a share outside [0, 1], English or every clone unread.
    """

    shares: tuple[float, ...]
    bilingual: float = 0.3
    shared: float = 0.0

    def __post_init__(self) -> None:
        for value in (self.bilingual, self.shared, *self.shares):
            if not 0 <= value <= 1:
                raise ValueError(f"{value} is no share: it must lie between 0 and 1")
        if not self.shares or not self.shares[0]:
            raise ValueError("English is never read: the first of the shares is its own, and above 0")
        if self.bilingual and not any(self.shares[1:]):
            raise ValueError("bilingual documents need a clone that is read: give one a share above 0")

    @property
    def names(self) -> tuple[str, ...]:
        """`en`, then `clone 1` and so on."""
        return (KEY, *(f"clone {k}" for k in range(1, len(self.shares))))


def clone_ids(config: CloneConfig, vocab: int, room: int) -> np.ndarray:
    """`(language, id)`: what each id of English is in each language. Id 0, the end of a text, is common to all.

    Args:
        vocab: ids of English; room: rows of the model's embedding.

    Raises:
        ValueError: the languages have more ids than there is room for.
    """
    languages = len(config.shares)
    if languages * vocab > room:
        raise ValueError(
            f"English and {languages - 1} clones of {vocab} ids each need {languages * vocab} rows of the vocabulary, "
            f"which has {room}"
        )
    rng = np.random.default_rng(SEED)
    order = 1 + rng.permutation(vocab - 1)
    common = np.zeros(vocab, dtype=bool)
    common[[0, *order[: round(config.shared * (vocab - 1))]]] = True
    rows = [np.arange(vocab)]
    for k in range(1, languages):
        rows.append(np.where(common, rows[0], k * vocab + rng.permutation(vocab)))
    return np.stack(rows)


@dataclass
class CloneColumn(Column):
    """A column of English read in another language; `ids`: of `clone_ids`, one language's."""

    ids: np.ndarray

    def row(self, i: int | np.integer) -> np.ndarray:
        return self.ids[super().row(i)]


class CloneStream(Mixture):
    """The stream: a batch is a pure function of (seed, step).

    Args:
        config: the languages.
        tokenizer: of English; its end-of-text token has the id 0.
        columns: English training text by (corpus, `en`); see `Mixture`.
        room: rows of the model's embedding.

    Attributes:
        ids: see `clone_ids`.

    Raises:
        ValueError: see `clone_ids`.
    """

    def __init__(
        self,
        config: CloneConfig,
        tokenizer: PreTrainedTokenizerFast,
        columns: Mapping[tuple[str, str], Column],
        room: int,
    ) -> None:
        super().__init__(MixtureConfig(bilingual=0.0, problems=0.0, languages=(KEY,)), tokenizer, columns)
        self.clones = config
        self.ids = clone_ids(config, len(tokenizer), room)
        self._read = {
            key: [CloneColumn(**vars(column), ids=ids) for ids in self.ids] for key, column in self.columns.items()
        }
        shares = np.array(config.shares)
        self._alone, others = shares / shares.sum(), np.where(np.arange(len(shares)), shares, 0)
        self._beside = others / (others.sum() or 1)

    def _document(self, rng: np.random.Generator, room: int) -> tuple[str, np.ndarray]:
        keys, p = self._mono
        read = self._read[keys[rng.choice(len(keys), p=p)]]
        if rng.random() < self.clones.bilingual:
            pair = [0, rng.choice(len(read), p=self._beside)]
            rng.shuffle(pair)
            return "bilingual", self._text(rng, [read[k] for k in pair], read[0].rows, room)
        own = read[rng.choice(len(read), p=self._alone)]
        return "monolingual", self._text(rng, [own], own.rows, room)

    def tokenizer_of(self, language: int) -> PreTrainedTokenizerFast:
        """A tokenizer that reads English text as a language.

        Raises:
            ValueError: no such language.
        """
        if not 0 <= language < len(self.ids):
            raise ValueError(f"there is no language {language}: English is 0, its clones go to {len(self.ids) - 1}")
        payload = json.loads(self.tokenizer.backend_tokenizer.to_str())
        vocab = payload["model"]["vocab"]
        payload["model"]["vocab"] = {token: int(self.ids[language, i]) for token, i in vocab.items()}
        end = self.tokenizer.eos_token
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(payload)), eos_token=end, pad_token=end
        )

    def tokens_read(self, seed: int, tokens: int) -> np.ndarray:
        """`(language,)` tokens of each language that a run of so many tokens reads, by the share among its first 40
        batches. An id that languages share counts as English."""
        ids = np.concatenate([self.batch(seed, step, 32, 256).ravel() for step in range(40)])
        found = np.bincount(ids[ids > 0] // len(self.tokenizer), minlength=len(self.ids))
        return found / found.sum() * tokens
