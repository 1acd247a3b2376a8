from itertools import islice

import numpy as np
import pytest

from mechanism.corpus import word_problems as wp


def sample(count=3000):
    rng = np.random.default_rng(0)
    return [wp.draw(rng) for _ in range(count)]


def test_answers_and_numbers_are_in_range():
    for problem in sample():
        assert 0 <= problem.answer <= wp.MAX_ANSWER
        assert min(problem.numbers) >= 2, "one would change the form of nouns"
    assert {p.template for p in sample()} == set(wp.TEMPLATES)


def test_splits_are_disjoint_in_template_and_numbers():
    seen = {
        split: {(p.template, p.numbers) for p in islice(wp.stream(split, 1), 1500)}
        for split in ("train", "dev", "test")
    }
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["dev"]
    assert not seen["dev"] & seen["test"]


def test_every_language_states_every_number_of_every_template():
    assert len(wp.languages()) >= 10
    for problem in sample(400):
        for code in wp.languages():
            text = problem.question(code)
            assert "{" not in text
            for number in problem.numbers:
                assert str(number) in text, (code, problem.template)


def test_items_are_parallel_and_deterministic():
    assert wp.evaluation_set("test", 50) == wp.evaluation_set("test", 50)
    assert all(p.split == "test" for p in wp.evaluation_set("test", 50))
    assert len({(p.template, p.numbers) for p in wp.evaluation_set("test", 50)}) == 50


def test_two_step_problems_need_both_steps():
    problem = wp.Problem("boxes_give", (7, 7, 20), (0, 1), 0)
    assert problem.answer == 29
    assert problem.question("en") == (
        "Anna buys 7 boxes. Each box holds 7 apples. Anna gives 20 apples away. How many apples does Anna keep?"
    )
    assert wp.Problem("more_than", (10, 5), (0, 1), 0).answer == 25


def test_number_words_and_unknown_languages():
    problem = wp.Problem("add_two", (20, 22), (0, 1), 0)
    assert wp.solution(problem, "fr", words=True) == " quarante-deux"
    assert wp.solution(problem, "fr") == "42"
    with pytest.raises(KeyError, match="no number words for 'zh'"):
        wp.spell(3, "zh")
    with pytest.raises(KeyError, match="no word problems in 'sw'"):
        problem.question("sw")
    with pytest.raises(KeyError, match="unknown language 'qq'"):
        problem.question("qq")
