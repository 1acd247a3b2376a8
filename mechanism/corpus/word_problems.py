"""Parallel arithmetic word problems: one item, rendered in any of the languages of `word_problems.yaml`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import yaml
from num2words import num2words

from .languages import language
from .text import hash_fraction

MAX_ANSWER = 99
# Languages of the templates whose number words num2words spells.
WORD_ANSWER_LANGUAGES = ("en", "de", "fr", "es", "it", "ru", "vi", "tr", "id", "fa")


@dataclass(frozen=True)
class Template:
    """A kind of problem: how numbers are drawn, and how the answer follows from them."""

    draw: Callable[[np.random.Generator], tuple[int, ...]]
    answer: Callable[..., int]


def _sum(rng: np.random.Generator) -> tuple[int, ...]:
    total = int(rng.integers(4, MAX_ANSWER + 1))
    first = int(rng.integers(2, total - 1))
    return first, total - first


def _difference(rng: np.random.Generator) -> tuple[int, ...]:
    first = int(rng.integers(4, MAX_ANSWER + 1))
    return first, int(rng.integers(2, first))


def _product(rng: np.random.Generator) -> tuple[int, ...]:
    first = int(rng.integers(2, 11))
    return first, int(rng.integers(2, MAX_ANSWER // first + 1))


def _with_less(draw: Callable, combine: Callable[..., int]) -> Callable:
    """Numbers of `draw` and a third that is smaller than what they combine to."""

    def drawn(rng: np.random.Generator) -> tuple[int, ...]:
        numbers = draw(rng)
        return (*numbers, int(rng.integers(2, max(3, combine(*numbers)))))

    return drawn


def _twice_and_more(rng: np.random.Generator) -> tuple[int, ...]:
    first = int(rng.integers(2, 46))
    return first, int(rng.integers(2, MAX_ANSWER - 2 * first + 1))


TEMPLATES: dict[str, Template] = {
    "add_more": Template(_sum, lambda a, b: a + b),
    "add_two": Template(_sum, lambda a, b: a + b),
    "give_away": Template(_difference, lambda a, b: a - b),
    "compare": Template(_difference, lambda a, b: a - b),
    "boxes": Template(_product, lambda a, b: a * b),
    "add_give": Template(_with_less(_sum, lambda a, b: a + b), lambda a, b, c: a + b - c),
    "boxes_give": Template(_with_less(_product, lambda a, b: a * b), lambda a, b, c: a * b - c),
    "more_than": Template(_twice_and_more, lambda a, b: 2 * a + b),
}


@dataclass(frozen=True)
class Problem:
    """A word problem before any language.

    Attributes:
        template: key of `TEMPLATES`.
        numbers: two or three numbers, each at least 2.
        names: indices of the two names.
        item: index of the object.
    """

    template: str
    numbers: tuple[int, ...]
    names: tuple[int, int]
    item: int

    @property
    def answer(self) -> int:
        """0-99."""
        return TEMPLATES[self.template].answer(*self.numbers)

    @property
    def split(self) -> str:
        """By hash of (template, numbers): 10 % test, 10 % dev, the rest train."""
        fraction = hash_fraction(f"problem/{self.template}/{self.numbers}")
        return "test" if fraction < 0.1 else "dev" if fraction < 0.2 else "train"

    def question(self, code: str) -> str:
        """The problem in a language.

        Raises:
            KeyError: the language has no templates.
        """
        words = _wording(code)
        nouns = words["objects"][self.item]
        name, other = (words["names"][i] for i in self.names)
        values = dict(zip("abc", self.numbers, strict=False))
        return words[self.template].format(n=name, m=other, o=nouns[0], q=nouns[-1], **values)


def languages() -> tuple[str, ...]:
    """Languages that have templates."""
    return tuple(_wordings())


@cache
def _wordings() -> dict[str, dict]:
    return yaml.safe_load(files(__package__).joinpath("word_problems.yaml").read_text("utf-8"))


def _wording(code: str) -> dict:
    language(code)
    if code not in _wordings():
        raise KeyError(f"no word problems in {code!r}; languages with templates: {' '.join(languages())}")
    return _wordings()[code]


def spell(number: int, code: str) -> str:
    """A number as a word of the language.

    Raises:
        KeyError: number words of the language are not available.
    """
    if code not in WORD_ANSWER_LANGUAGES:
        raise KeyError(f"no number words for {code!r}; languages with number words: {' '.join(WORD_ANSWER_LANGUAGES)}")
    return num2words(number, lang=code)


def draw(rng: np.random.Generator) -> Problem:
    """One problem of any split."""
    template = list(TEMPLATES)[rng.integers(len(TEMPLATES))]
    count = len(_wordings()["en"]["names"])
    first, second = rng.choice(count, size=2, replace=False)
    return Problem(template, TEMPLATES[template].draw(rng), (int(first), int(second)), int(rng.integers(count)))


def stream(split: str, seed: int | list[int]) -> Iterator[Problem]:
    """Problems of a split without end, drawn afresh from the seed."""
    rng = np.random.default_rng(seed)
    while True:
        problem = draw(rng)
        if problem.split == split:
            yield problem


def evaluation_set(split: str, count: int, seed: int = 0) -> list[Problem]:
    """The first `count` distinct (template, numbers) combinations of a split: the same items in every language."""
    found: dict[tuple, Problem] = {}
    problems = stream(split, [seed, 7])
    while len(found) < count:
        problem = next(problems)
        found.setdefault((problem.template, problem.numbers), problem)
    return list(found.values())


def prompt(question: str, words: bool = False) -> str:
    """What the model reads: the question, then ` =` for an answer in digits or ` :` for one in words."""
    return f"{question} :" if words else f"{question} ="


def solution(problem: Problem, code: str, words: bool = False) -> str:
    """The answer as it follows the prompt: digits without a space, or a space and the number word."""
    return f" {spell(problem.answer, code)}" if words else str(problem.answer)


def solved(split: str, count: int, code: str, seed: int = 0) -> list[tuple[str, str]]:
    """Prompts of problems in a language, each with its answer."""
    made = evaluation_set(split, count, seed)
    return [(prompt(problem.question(code)), solution(problem, code)) for problem in made]
