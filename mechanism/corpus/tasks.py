"""Tasks that are parallel over languages: the same items in every language, deterministic, split by document."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import word_problems
from .store import Corpus
from .text import even

CHOICES = 4
CONTEXT = 2


@dataclass(frozen=True)
class ChoiceItem:
    """One multiple-choice item.

    Attributes:
        id: the same in every language.
        cluster: what is drawn together in intervals: the document that the item comes from; a word problem is on its
            own (few templates make no sample of templates: intervals are over problems of these ones).
        context: what the model reads; choices: possible continuations; answer: index of the true one.
    """

    id: str
    cluster: str
    context: str
    choices: tuple[str, ...]
    answer: int


def next_segment(
    corpus: Corpus, code: str, split: str = "test", limit: int | None = None, seed: int = 0
) -> list[ChoiceItem]:
    """Which segment continues two of a document? The true next one stands among three others of the same document,
    those whose length is closest, none of them in the context. Chance is one in four.

    Args:
        limit: at most this many items, evenly spaced.
    """
    column, pivot = corpus.columns[code], corpus.columns[corpus.languages[0]]
    items = []
    for group, rows in corpus.groups(split).items():
        usable = [i for i in rows if pivot[i]]
        for at in range(CONTEXT, len(usable)):
            picked = _distractors(usable, at, pivot)
            if picked and all(column[i] for i in (*usable[at - CONTEXT : at], usable[at], *picked)):
                text = corpus.joiner.join(column[i] for i in usable[at - CONTEXT : at]) + corpus.joiner
                rng = np.random.default_rng([seed, usable[at]])
                options = [column[i] for i in (usable[at], *picked)]
                items.append(_choice(f"{group}/{usable[at]}", group, text, options, rng))
    return even(items, len(items) if limit is None else limit)


def _distractors(rows: list[int], at: int, pivot: list[str]) -> list[int]:
    """Three rows of the document outside the context, closest in (pivot) length to the true one, all different."""
    true = pivot[rows[at]]
    near = {*rows[at - CONTEXT : at + 1]}
    pool = sorted(
        (i for i in rows if i not in near and pivot[i] != true), key=lambda i: (abs(len(pivot[i]) - len(true)), i)
    )
    chosen: list[int] = []
    for i in pool:
        if pivot[i] not in {pivot[j] for j in chosen}:
            chosen.append(i)
        if len(chosen) == CHOICES - 1:
            return chosen
    return []


def _choice(id_: str, cluster: str, text: str, options: list[str], rng: np.random.Generator) -> ChoiceItem:
    """An item whose options, the true one first, are put into an order drawn from `rng`."""
    order = rng.permutation(CHOICES)
    return ChoiceItem(id_, cluster, text, tuple(options[i] for i in order), int(np.argmin(order)))


def word_problem_items(
    code: str,
    count_tokens: Callable[[str], int],
    split: str = "test",
    count: int = 200,
    words: bool = False,
    seed: int = 0,
) -> list[ChoiceItem]:
    """Word problems with four answers of the same number of tokens: a choice among unequal lengths rewards the
    shortest, not the right one.

    Args:
        count_tokens: number of tokens of an answer under the model's tokenizer.
        words: answers as number words of the language.

    Raises:
        KeyError: the language has no templates, or no number words.
    """
    numbers = range(word_problems.MAX_ANSWER + 1)
    spelled = [f" {word_problems.spell(n, code)}" if words else str(n) for n in numbers]
    length = [count_tokens(text) for text in spelled]
    items = []
    for number, problem in enumerate(word_problems.evaluation_set(split, count, seed)):
        rng = np.random.default_rng([seed, number, 11])
        pool = [n for n in numbers if length[n] == length[problem.answer] and n != problem.answer]
        if len(pool) >= CHOICES - 1:
            options = [spelled[n] for n in (problem.answer, *rng.choice(pool, CHOICES - 1, replace=False))]
            context = word_problems.prompt(problem.question(code), words)
            items.append(_choice(str(number), str(number), context, options, rng))
    return items


def retrieval_rows(corpus: Corpus, code: str, split: str = "test", count: int = 200) -> list[int]:
    """Rows for parallel retrieval against English: `count` evenly spaced rows that both languages have, with
    distinct texts on both sides."""
    rows, seen = [], set()
    for i in corpus.parallel(split, ("en", code)):
        texts = (corpus.columns["en"][i], corpus.columns[code][i])
        if not seen.intersection(texts):
            seen.update(texts)
            rows.append(i)
    return even(rows, count)
