from collections import Counter

import pytest

from mechanism.corpus import tasks
from mechanism.corpus.library import DATA, committed
from mechanism.corpus.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def count_tokens():
    tokenizer = load_tokenizer(DATA / "tokenizer")
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("code", ["en", "de", "ar"])
def test_next_segment_items(code):
    corpus = committed("religion")
    items = tasks.next_segment(corpus, code, limit=60)
    assert len(items) == 60
    assert items == tasks.next_segment(corpus, code, limit=60)
    tests = set(corpus.texts(code, corpus.split("test")))
    for item in items:
        assert len(set(item.choices)) == tasks.CHOICES
        assert set(item.choices) <= tests
        assert not any(choice in item.context for choice in item.choices)
    answers = Counter(item.answer for item in tasks.next_segment(corpus, code))
    assert len(answers) == 4
    assert max(answers.values()) < 1.4 * min(answers.values())


def test_next_segment_is_parallel():
    english, german = (tasks.next_segment(committed("religion"), code) for code in ("en", "de"))
    shared = {i.id: i.answer for i in english}
    assert all(shared[item.id] == item.answer for item in german)


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("code", ["en", "tr"])
def test_answers_have_equal_token_counts(code, words, count_tokens):
    items = tasks.word_problem_items(code, count_tokens, count=60, words=words)
    assert len(items) > 40
    for item in items:
        assert len({count_tokens(choice) for choice in item.choices}) == 1
        assert len(set(item.choices)) == tasks.CHOICES
    answers = Counter(item.answer for item in items)
    assert max(answers.values()) < 0.5 * len(items), "a constant guess must not do well"


def test_word_problems_are_units_of_their_own_and_shared_by_languages(count_tokens):
    """Eight templates are too few to resample: a bootstrap over them would be no bootstrap by item."""
    english, turkish = (tasks.word_problem_items(code, count_tokens, count=60) for code in ("en", "tr"))
    assert len({item.cluster for item in english}) == len(english)
    theirs = {item.id: item for item in turkish}
    assert all(theirs[item.id].cluster == item.cluster for item in english if item.id in theirs)
    documents = {item.cluster for item in tasks.next_segment(committed("religion"), "en", limit=60)}
    assert len(documents) < 60, "segments of a document are drawn together"


def test_retrieval_rows_are_distinct_on_both_sides():
    corpus = committed("tech")
    rows = tasks.retrieval_rows(corpus, "de")
    assert len(rows) == 200
    for code in ("en", "de"):
        assert len(set(corpus.texts(code, rows))) == 200
