"""A training stream of sequences in one language each, with the language's id, right, wrong or withheld."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from transformers import PreTrainedTokenizerFast

from .mixture import Column, Mixture, MixtureConfig

UNTOLD = -1
"""Language id where none is told; `mechanism.nn.language.UNKNOWN`."""


@dataclass(frozen=True)
class LanguageStreamConfig:
    """What is read and told.

    Attributes:
        languages: codes; a language's id is its place.
        alpha: a language is drawn with probability proportional to (its training tokens) ** alpha; 0 for all alike.
        told: whether the language is told; else every id is `UNTOLD`.
        noise: rate of sequences with the id of another language, each of the others alike.
        glimpsed, glimpse: one more language, which has no id, and its share of the sequences.

    Raises:
        ValueError: no language, one twice, a rate outside [0, 1], noise without another language or without telling, or
            a language that is glimpsed without a share between 0 and 1, or the other way round.
    """

    languages: tuple[str, ...]
    alpha: float = 0.7
    told: bool = True
    noise: float = 0.0
    glimpsed: str = ""
    glimpse: float = 0.0

    def __post_init__(self) -> None:
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError(f"languages {self.languages} are none, or one stands twice")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise is {self.noise}; it is a rate between 0 and 1")
        if self.noise and (len(self.languages) < 2 or not self.told):
            raise ValueError("noise in the language id needs a second language, and telling it")
        if self.glimpsed in self.languages or bool(self.glimpsed) != (0 < self.glimpse < 1):
            raise ValueError(
                f"{self.glimpsed!r} with {self.glimpse} of the sequences: a further language and its share"
            )

    @property
    def read(self) -> tuple[str, ...]:
        """All that are read."""
        return (*self.languages, self.glimpsed) if self.glimpsed else self.languages


class LanguageStream(Mixture):
    """The stream: a batch is a pure function of (seed, step). Noise changes ids, never text. The end-of-text token of
    the (fast) tokenizer opens every document."""

    def __init__(self, config: LanguageStreamConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        columns = {k: v for code in config.read for k, v in _columns(code, tokenizer).items()}
        mixture = MixtureConfig(bilingual=0.0, problems=0.0, alpha=config.alpha, languages=config.read)
        super().__init__(mixture, tokenizer, columns)
        self.stream = config
        keys, p = self._mono
        self._own = {code: [i for i, key in enumerate(keys) if key[1] == code] for code in config.read}
        drawn = {code: float(p[own].sum()) for code, own in self._own.items()}
        if config.glimpsed:
            rest = (1 - config.glimpse) / (1 - drawn[config.glimpsed])
            drawn = {code: share * rest for code, share in drawn.items()} | {config.glimpsed: config.glimpse}
        self.language_shares = drawn
        """Probability of each language."""

    def draw(self, seed: int, step: int, size: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids `(size, length + 1)`, and the true and the told language id `(size,)` of each sequence."""
        rng = np.random.default_rng([seed, step])
        true = rng.choice(len(self._own), size=size, p=list(self.language_shares.values()))
        ids = np.stack([self._in_language(rng, self.stream.read[code], length + 1) for code in true])
        return ids, true, self._tell(np.random.default_rng([seed, step, 1]), true)

    def told_batch(self, seed: int, step: int, size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and told language ids, as the trainer takes them."""
        ids, _, told = self.draw(seed, step, size, length)
        return ids, told

    def _tell(self, rng: np.random.Generator, true: np.ndarray) -> np.ndarray:
        if not self.stream.told:
            return np.full_like(true, UNTOLD)
        count = len(self.stream.languages)
        wrong = (true + rng.integers(1, max(count, 2), size=len(true))) % count
        told = np.where(rng.random(len(true)) < self.stream.noise, wrong, true)
        return np.where(true < count, told, UNTOLD)

    def _in_language(self, rng: np.random.Generator, code: str, length: int) -> np.ndarray:
        """Documents of one language, the last one cut."""
        keys, p = self._mono
        own = self._own[code]
        parts: list[np.ndarray] = []
        room = length
        while room > 0:
            column = self.columns[keys[own[rng.choice(len(own), p=p[own] / p[own].sum())]]]
            parts.append(self._text(rng, [column], column.rows, room)[:room])
            room -= len(parts[-1])
        return np.concatenate(parts)


@cache
def _columns(code: str, tokenizer: PreTrainedTokenizerFast) -> dict[tuple[str, str], Column]:
    """A language's training text, read once a process."""
    return Mixture(MixtureConfig(bilingual=0.0, problems=0.0, languages=(code,)), tokenizer).columns
