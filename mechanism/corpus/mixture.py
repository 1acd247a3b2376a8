"""The training stream of the embedded model: monolingual text, bilingual documents and word problems.

A batch is a pure function of (seed, step): resuming needs no state, and two runs with the same seed and mixture read
the same tokens.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerFast

from . import word_problems
from .languages import LANGUAGES, TRAINED
from .library import committed, training_budgets, training_rows


@dataclass(frozen=True)
class MixtureConfig:
    """Shares of the stream, by documents drawn, and how strongly languages are levelled.

    Documents are of unequal length; `Mixture.shares` measures the shares by tokens.

    Attributes:
        bilingual: share of documents that alternate two languages segment by segment.
        problems: share of documents of word problems.
        alpha: a language is drawn with probability proportional to (its training characters) ** alpha.
        english_pair: probability that a bilingual document has English as one of its languages.
        problem_decay: a language's share of problems falls as 1 / rank ** problem_decay in resource order.
        problem_words: share of problems answered in number words, where the language has them.
        languages: the languages of the stream.
    """

    bilingual: float = 0.45
    problems: float = 0.08
    alpha: float = 0.7
    english_pair: float = 0.5
    problem_decay: float = 1.5
    problem_words: float = 0.1
    languages: tuple[str, ...] = TRAINED


@dataclass
class Column:
    """Token ids of a language's training rows of a corpus: `tokens[offsets[i]:offsets[i+1]]` is row `i`."""

    tokens: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray  # rows within the language's training budget
    group: np.ndarray = field(repr=False)  # group number of every row

    def row(self, i: int | np.integer) -> np.ndarray:
        return self.tokens[self.offsets[i] : self.offsets[i + 1]]


class Mixture:
    """The stream.

    Args:
        config: shares.
        tokenizer: fast tokenizer; its end-of-text token opens every document.
        columns: what another mixture of the same languages and tokenizer has read, so that it is not read again.
    """

    def __init__(
        self,
        config: MixtureConfig,
        tokenizer: PreTrainedTokenizerFast,
        columns: Mapping[tuple[str, str], Column] | None = None,
    ) -> None:
        self.config, self.tokenizer = config, tokenizer
        self.eos = tokenizer.eos_token_id
        self.columns: dict[tuple[str, str], Column] = dict(columns or {})
        for code in config.languages if not columns else ():
            for name, budget in training_budgets(code).items():
                self.columns[name, code] = self._column(name, code, budget)
        self._mono = self._draws(self.columns)
        parallel = {name: [k for k in self.columns if k[0] == name] for name in ("religion", "tech")}
        self._pairs = {name: self._draws(keys) for name, keys in parallel.items() if len(keys) > 1}
        self._problem_languages = self._problem_draws()
        self._shared: dict[tuple[tuple[str, str], tuple[str, str]], np.ndarray] = {}

    def _column(self, name: str, code: str, budget: int | None) -> Column:
        corpus = committed(name)
        rows = training_rows(corpus, code, budget)
        inside = set(rows)
        texts = [t + corpus.joiner if i in inside else "" for i, t in enumerate(corpus.columns[code])]
        ids = [e.ids for e in self.tokenizer.backend_tokenizer.encode_batch(texts)]
        offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])])
        tokens = np.fromiter((t for i in ids for t in i), dtype=np.int32, count=offsets[-1])
        numbers = {group: n for n, group in enumerate(dict.fromkeys(row.group for row in corpus.rows))}
        group = np.array([numbers[row.group] for row in corpus.rows])
        return Column(tokens, offsets, np.array(rows), group)

    def _draws(self, keys: Iterable[tuple[str, str]]) -> tuple[list[tuple[str, str]], np.ndarray]:
        """Columns and their probabilities: language by size ** alpha, then corpus within language by size."""
        keys = list(keys)
        size = {key: len(self.columns[key].tokens) for key in keys}
        total = {code: sum(size[k] for k in keys if k[1] == code) for _, code in keys}
        weight = np.array([total[code] ** self.config.alpha * size[name, code] / total[code] for name, code in keys])
        return keys, weight / weight.sum()

    def _problem_draws(self) -> tuple[list[str], np.ndarray]:
        codes = [code for code in LANGUAGES if code in word_problems.languages() and code in self.config.languages]
        weight = np.arange(1, len(codes) + 1) ** -self.config.problem_decay
        return codes, weight / weight.sum()

    def batch(self, seed: int, step: int, size: int, length: int) -> np.ndarray:
        """Token ids `(size, length + 1)` of a step: rows of whole documents, the last one cut."""
        rng = np.random.default_rng([seed, step])
        return np.stack([self._sequence(rng, length + 1) for _ in range(size)])

    def _sequence(self, rng: np.random.Generator, length: int) -> np.ndarray:
        return np.concatenate([ids for _, ids in self._documents(rng, length)])

    def _documents(self, rng: np.random.Generator, room: int) -> Iterator[tuple[str, np.ndarray]]:
        """Documents, with their kind, that fill a sequence."""
        while room > 0:
            kind, ids = self._document(rng, room)
            yield kind, ids[:room]
            room -= len(ids[:room])

    def _document(self, rng: np.random.Generator, room: int) -> tuple[str, np.ndarray]:
        u = rng.random()
        if u < self.config.problems and self._problem_languages[0]:
            return "problems", self._problems(rng)
        if u < self.config.problems + self.config.bilingual and self._pairs:
            return "bilingual", self._bilingual(rng, room)
        keys, p = self._mono
        column = self.columns[keys[rng.choice(len(keys), p=p)]]
        return "monolingual", self._text(rng, [column], column.rows, room)

    def _bilingual(self, rng: np.random.Generator, room: int) -> np.ndarray:
        names = list(self._pairs)
        name = names[0] if rng.random() < 0.5 else names[-1]
        keys, p = self._pairs[name]
        english = keys.index((name, "en")) if (name, "en") in keys else 0
        if rng.random() < self.config.english_pair:
            others = np.where(np.arange(len(keys)) == english, 0, p)
            pair = [english, rng.choice(len(keys), p=others / others.sum())]
        else:
            pair = list(rng.choice(len(keys), size=2, replace=False, p=p))
        rng.shuffle(pair)
        columns = [self.columns[keys[i]] for i in pair]
        return self._text(rng, columns, self._common(*sorted(keys[i] for i in pair)), room)

    def _common(self, a: tuple[str, str], b: tuple[str, str]) -> np.ndarray:
        """Rows that two columns share, ascending; to find them takes longer than the rest of a batch."""
        if (a, b) not in self._shared:
            self._shared[a, b] = np.intersect1d(self.columns[a].rows, self.columns[b].rows, assume_unique=True)
        return self._shared[a, b]

    def _text(self, rng: np.random.Generator, columns: list[Column], rows: np.ndarray, room: int) -> np.ndarray:
        """Running text from a random row to the end of its group, languages alternating row by row."""
        parts = [np.array([self.eos], dtype=np.int32)]
        if len(rows):
            at = int(rng.integers(len(rows)))
            group, used = columns[0].group[rows[at]], 1
            while used < room and at < len(rows) and columns[0].group[rows[at]] == group:
                parts += [column.row(rows[at]) for column in columns]
                used += sum(len(column.row(rows[at])) for column in columns)
                at += 1
        return np.concatenate(parts)

    def _problems(self, rng: np.random.Generator) -> np.ndarray:
        """Four training problems in one language."""
        codes, p = self._problem_languages
        code = codes[rng.choice(len(codes), p=p)]
        lines = []
        while len(lines) < 4:
            problem = word_problems.draw(rng)
            if problem.split == "train":
                words = code in word_problems.WORD_ANSWER_LANGUAGES and rng.random() < self.config.problem_words
                question = word_problems.prompt(problem.question(code), words)
                lines.append(question + word_problems.solution(problem, code, words) + "\n")
        ids = [t for line in lines for t in (self.eos, *self.tokenizer(line)["input_ids"])]
        return np.array(ids, dtype=np.int32)

    def shares(self, seed: int = 0, batches: int = 20, size: int = 32, length: int = 256) -> dict[str, float]:
        """Share of tokens by kind of document, counted on the first batches of the stream."""
        counts = dict.fromkeys(("problems", "bilingual", "monolingual"), 0)
        for step in range(batches):
            rng = np.random.default_rng([seed, step])
            for _ in range(size):
                for kind, ids in self._documents(rng, length + 1):
                    counts[kind] += len(ids)
        total = sum(counts.values())
        return {kind: count / total for kind, count in counts.items()}
