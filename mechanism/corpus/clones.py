"""Clone languages: English with its token ids permuted into a range of their own. Grammar, length and data are ours to
set, and every text exists in every language, so that what differs between two languages is known."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


class SkillStream(CloneStream):
    """The stream with word problems among its documents.

    Args:
        given: of `CloneStream`.
        problems: share of documents that are word problems.
        everywhere: in all languages that are read, drawn alike; else in English alone.

    Raises:
        ValueError: see `CloneStream`; a share outside [0, 1].
    """

    def __init__(self, *given: Any, problems: float, everywhere: bool = False) -> None:
        super().__init__(*given)
        if not 0 <= problems <= 1:
            raise ValueError(f"{problems} is no share: it must lie between 0 and 1")
        self.problems = problems
        self._taught = np.flatnonzero(self._alone) if everywhere else np.zeros(1, dtype=int)

    def _document(self, rng: np.random.Generator, room: int) -> tuple[str, np.ndarray]:
        if rng.random() < self.problems:
            return "problems", self.ids[rng.choice(self._taught)][self._problems(rng)]
        return super()._document(rng, room)


MARK = 0xE000
"""First of the private code points by which a text says which clone it is read as; see `CloneTokenizer`."""


def as_clone(text: str, language: int) -> str:
    """English text that `CloneTokenizer` reads as a language; 0 is English, whose text stays as it is."""
    return chr(MARK + language) + text if language else text


class CloneTokenizer(PreTrainedTokenizerFast):
    """One tokenizer of all languages: text that opens with a mark (see `as_clone`) is read as a clone.

    Args:
        tokenizer: of English; ids: of `clone_ids`.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ids: np.ndarray) -> None:
        end = tokenizer.eos_token
        super().__init__(tokenizer_object=tokenizer.backend_tokenizer, eos_token=end, pad_token=end)
        self.clone_ids = ids
        self._common = (ids == ids[0]).all(0)
        self._back = [dict(zip(own.tolist(), range(ids.shape[1]), strict=True)) for own in ids]

    def __call__(self, text: str | Sequence[str], **options: Any) -> Any:
        """`input_ids` of a text, or of several; options are those of the tokenizer.

        Raises:
            ValueError: the mark of a language that there is not.
        """
        texts = [text] if isinstance(text, str) else list(text)
        languages = [ord(own[0]) - MARK if own and MARK <= ord(own[0]) < MARK + 0x1900 else 0 for own in texts]
        if max(languages, default=0) >= len(self.clone_ids):
            raise ValueError(f"there is no language {max(languages)}: the clones go to {len(self.clone_ids) - 1}")
        plain = [own[1:] if language else own for own, language in zip(texts, languages, strict=True)]
        english = super().__call__(plain, **options)["input_ids"] if plain else []
        found = [self.clone_ids[language][row].tolist() for language, row in zip(languages, english, strict=True)]
        return {"input_ids": found[0] if isinstance(text, str) else found}

    def decode(self, token_ids: Any, **options: Any) -> str:
        """The text of ids of any language, with a mark where a language begins; ids that all languages share belong to
        the one before them."""
        ids, parts, language = np.asarray(token_ids), list[str](), 0
        size = self.clone_ids.shape[1]
        begun, row = 0, list[int]()
        for one in ids.tolist():
            own = language if one < size and self._common[one] else one // size
            if own != language:
                parts.append(self._said(row, language, begun, options))
                begun, row, language = 1, [], own
            row.append(self._back[language][one])
        parts.append(self._said(row, language, begun, options))
        return "".join(parts)

    def _said(self, row: list[int], language: int, begun: int, options: Mapping[str, Any]) -> str:
        """A stretch of one language: English that opens a text has no mark."""
        said = super().decode(row, **options) if row else ""
        return chr(MARK + language) + said if said and (language or begun) else said
