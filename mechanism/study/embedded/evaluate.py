"""The task table of a model: every task, language and corpus with interval, n and chance."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus import tasks, word_problems
from ...corpus.languages import language
from ...corpus.library import DOMAINS, PARALLEL, load
from ...corpus.store import Corpus, CorpusError
from ...measure.evidence import Evidence
from ...measure.retrieval import retrieval_hits
from ...measure.statistics import ClusterBootstrap
from ...models.scoring import exact_match, score_choices, score_text, token_counter
from ...models.segments import segment_pass

RECORD_SEGMENTS = 100  # cap of the evaluation in a run's record, and of the compression baselines beside it
POOLED = "pooled"
COLUMNS = ["task", "corpus", "lang", "layer", "estimate", "low", "high", "n", "chance"]


@dataclass(frozen=True)
class EvaluateConfig:
    """What is evaluated.

    Attributes:
        languages: codes, None for all that the data have; data: corpora by name, folder, table or `hub:NAME`.
        max_segments: cap per language and corpus on segments, choice items and word problems.
        split: `test`, or `dev` for choosing hyper-parameters; seed: of items and resampling.
    """

    languages: tuple[str, ...] | None = None
    data: tuple[str, ...] = (*PARALLEL, *DOMAINS)
    max_segments: int = 200
    split: str = "test"
    seed: int = 0

    def __post_init__(self) -> None:
        for code in self.languages or ():
            language(code)
        if self.max_segments < 1:
            raise ValueError(f"max_segments is {self.max_segments}; it must be at least 1")

    def codes(self, corpus: Corpus) -> list[str]:
        return [code for code in corpus.languages if self.languages is None or code in self.languages]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: EvaluateConfig = EvaluateConfig(),
    progress: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """The task table, one row per task, corpus, language (and layer for retrieval).

    Tasks: `bits_per_byte` on running text; `relative_loss`, total loss over the loss on the English of the same
    segments; `next_segment`, `word_problem`, `word_problem_words` (4-way choice, chance .25); `next_segment_pooled`,
    over the items of all corpora; `word_problem_exact` (greedy exact match); `retrieval` and `retrieval_centred` of the
    English translation, per hidden state.

    Raises:
        CorpusError: nothing to evaluate: no named corpus has a named language.
    """
    own = _Evaluation(model.eval(), tokenizer, config, ClusterBootstrap(seed=config.seed))
    rows: list[dict] = []
    for name in config.data:
        corpus = load(name, config.languages or ())
        for code in config.codes(corpus):
            progress(f"{corpus.name} {code}")
            rows += [row | {"corpus": corpus.name, "lang": code} for row in own.corpus(corpus, code)]
    rows += own.pooled()
    for code in word_problems.languages():
        if config.languages is None or code in config.languages:
            progress(f"word problems {code}")
            rows += [row | {"corpus": "word_problems", "lang": code} for row in own.problems(code)]
    if not rows:
        raise CorpusError(f"nothing to evaluate: {config.data} have none of the languages {config.languages}")
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _row(task: str, estimate: Evidence, chance: float | None = None, layer: int | None = None) -> dict:
    return {"task": task, "layer": layer, **estimate.row(), "chance": chance}


def running_text(corpus: Corpus, code: str, split: str, max_segments: int | None) -> list[str]:
    """Documents of a split as running text, evenly chosen groups until about `max_segments` segments are used."""
    documents, used = [], 0
    groups = [[i for i in rows if corpus.columns[code][i]] for rows in corpus.groups(split).values()]
    groups = [rows for rows in groups if rows]
    wanted = max_segments or sum(map(len, groups))
    stride = max(1, sum(map(len, groups)) // wanted)
    for rows in groups[::stride]:
        rows = rows[: wanted - used]
        documents.append(corpus.joiner.join(corpus.texts(code, rows)))
        used += len(rows)
        if used >= wanted:
            break
    return documents


@dataclass(frozen=True)
class _Evaluation:
    """Rows of one model; next-segment hits and their documents are kept by language, so that corpora can be pooled."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: EvaluateConfig
    bootstrap: ClusterBootstrap
    kept: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)

    def corpus(self, corpus: Corpus, code: str) -> Iterator[dict]:
        """Running text, choices and, beside English, retrieval in one language of a corpus."""
        config = self.config
        documents = running_text(corpus, code, config.split, config.max_segments)
        if documents:
            score = score_text(self.model, self.tokenizer, documents)
            yield _row("bits_per_byte", self.bootstrap(score.nll / np.log(2), score.bytes))
        items = tasks.next_segment(corpus, code, config.split, limit=config.max_segments, seed=config.seed)
        if items:
            hits = score_choices(self.model, self.tokenizer, items, per_byte=True)
            yield self.choices(corpus.name, code, hits, [item.cluster for item in items])
        if code != "en" and "en" in corpus.columns:
            yield from self._parallel(corpus, code)

    def choices(self, corpus: str, code: str, hits: np.ndarray, clusters: Iterable) -> dict:
        """Next-segment choice of one corpus."""
        labels = np.array([f"{corpus} {cluster}" for cluster in clusters])
        self.kept.setdefault(code, []).append((np.asarray(hits), labels))
        return _row("next_segment", self.bootstrap(hits, clusters=labels), 1 / tasks.CHOICES)

    def pooled(self) -> Iterator[dict]:
        """A row per language over its items of all corpora, documents of all of them resampled."""
        for code, parts in self.kept.items():
            hits, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
            estimate = self.bootstrap(hits, clusters=labels)
            yield _row("next_segment_pooled", estimate, 1 / tasks.CHOICES) | {"corpus": POOLED, "lang": code}

    def _parallel(self, corpus: Corpus, code: str) -> Iterator[dict]:
        rows = tasks.retrieval_rows(corpus, code, self.config.split, min(self.config.max_segments, 200))
        if len(rows) < 2:
            return
        clusters = np.array([corpus.rows[i].group for i in rows])
        own, english = (segment_pass(self.model, self.tokenizer, corpus.texts(c, rows)) for c in (code, "en"))
        yield _row("relative_loss", self.bootstrap(own.nll, english.nll, clusters))
        for key, centre in (("retrieval", False), ("retrieval_centred", True)):
            for layer in range(own.hidden.shape[1]):
                hits = retrieval_hits(own.hidden[:, layer], english.hidden[:, layer], centre)
                yield _row(key, self.bootstrap(hits, clusters=clusters), 1 / len(rows), layer)

    def problems(self, code: str) -> Iterator[dict]:
        """Word problems in one language."""
        digits = self._items(code, words=False)
        yield self._chosen("word_problem", digits)
        yield _row("word_problem_exact", self.bootstrap(exact_match(self.model, self.tokenizer, digits)))
        if code in word_problems.WORD_ANSWER_LANGUAGES:
            yield self._chosen("word_problem_words", self._items(code, words=True))

    def _chosen(self, task: str, items: list[tasks.ChoiceItem]) -> dict:
        hits = score_choices(self.model, self.tokenizer, items, per_byte=False)
        return _row(task, self.bootstrap(hits), 1 / tasks.CHOICES)

    def _items(self, code: str, words: bool) -> list[tasks.ChoiceItem]:
        own, counter = self.config, token_counter(self.tokenizer)
        return tasks.word_problem_items(code, counter, own.split, own.max_segments, words, own.seed)
