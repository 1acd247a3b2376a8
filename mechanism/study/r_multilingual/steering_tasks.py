"""The tasks that steering is tried on: in-task text to find experts with, and parallel choice items in two splits."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from ...corpus import word_problems
from ...corpus.library import load
from ...corpus.store import SPLITS, Corpus, CorpusError
from ...corpus.tasks import ChoiceItem, next_segment, word_problem_items
from ...corpus.text import hash_fraction
from ...models.passes import MAX_TOKENS
from ...models.scoring import token_counter
from ..base.texts import FEWEST, RoutingConfig, pivot_of
from .observe import read

Items = dict[str, list[ChoiceItem]]


@dataclass(frozen=True)
class TaskConfig:
    """What is read.

    Attributes:
        languages: codes, of items and of generic text; all there are without any. The pivot (English) is always there.
        dev, test: cap on the items of each split, per language.
        segments: cap on the texts that experts are found with, each of the task and of the generic corpus.
        longest: cap on the characters of an item's context and choices together in the pivot, where items are text.
        seed: of items.
    """

    languages: tuple[str, ...] | None = None
    dev: int = 12
    test: int = 12
    segments: int = 24
    longest: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.dev, self.test, self.segments) < FEWEST:
            raise ValueError(f"dev, test and segments are {self.dev}, {self.test}, {self.segments}; ten are the fewest")


@dataclass(frozen=True)
class SteeringTask:
    """A task in parallel over languages.

    Attributes:
        name: for tables; pivot: the language whose task experts are steered.
        texts: in-task text in the pivot; generic: other text by language, the pivot first.
        dev, test: items by language, the pivot first; the same id is the same item.
        per_byte: score a choice per UTF-8 byte; chat: contexts and texts are rendered chats.
        left_out: languages that cannot be used, with the reason.
    """

    name: str
    pivot: str
    texts: tuple[str, ...]
    generic: dict[str, list[str]]
    dev: Items
    test: Items
    per_byte: bool = False
    chat: bool = False
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages with items, the pivot first."""
        return tuple(self.test)


def make_task(tokenizer: PreTrainedTokenizerBase, config: TaskConfig, generic: str, domain: str = "") -> SteeringTask:
    """The task of a domain, or word problems without one; `generic` and `domain` name corpora.

    Raises:
        CorpusError: see `word_problem_task` and `domain_task`.
    """
    codes = config.languages or ()
    if not domain:
        return word_problem_task(tokenizer, load(generic, codes), config)
    return domain_task(tokenizer, load(domain, codes), load(generic, codes), config)


def word_problem_task(
    tokenizer: PreTrainedTokenizerBase, generic: Corpus, config: TaskConfig = TaskConfig()
) -> SteeringTask:
    """Arithmetic word problems, four answers of equal token count. Experts are found with solved training problems. A
    tokenizer's chat template, if it has one, wraps problems and generic text alike.

    Raises:
        CorpusError: no other language than English is left.
    """
    wanted = list(dict.fromkeys(["en", *(config.languages or word_problems.languages())]))
    known = [code for code in wanted if code in word_problems.languages()]

    def said(user: str, assistant: str = "") -> str:
        """A user asks, the assistant answers; generic text is a user's turn."""
        if tokenizer.chat_template is None:
            return user + assistant
        turns = [{"role": "user", "content": user.removesuffix(" =")}]
        turns += [{"role": "assistant", "content": assistant}] if assistant else []
        return tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=not assistant, enable_thinking=False
        )

    def items(split: str, size: int) -> Items:
        found = {code: word_problem_items(code, count, split, size, seed=config.seed) for code in known}
        return {code: [replace(item, context=said(item.context)) for item in own] for code, own in found.items()}

    count, text = token_counter(tokenizer), _generic(tokenizer, generic, "en", config)
    task = SteeringTask(
        name="word problems",
        pivot="en",
        texts=tuple(said(*turns) for turns in word_problems.solved("train", config.segments, "en", config.seed)),
        generic={code: [said(one) for one in own] for code, own in text.items()},
        dev=items("dev", config.dev),
        test=items("test", config.test),
        chat=tokenizer.chat_template is not None,
        left_out={code: "there are no word problems in it" for code in wanted if code not in known},
    )
    return _usable(tokenizer, task)


def domain_task(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, generic: Corpus, config: TaskConfig = TaskConfig()
) -> SteeringTask:
    """Which segment continues a document of the domain's parallel corpus? Experts are found with its training text, or
    with what there is in a corpus without splits, whose items go to dev and test in turn.

    Raises:
        CorpusError: the domain is the generic corpus, or no other language than the pivot is left.
    """
    if corpus.name == generic.name:
        raise CorpusError(
            f"corpus {corpus.name!r} cannot be both the domain and the generic text that it is held against"
        )
    pivot = pivot_of(corpus)
    codes = list(dict.fromkeys([pivot, *(config.languages or corpus.languages)]))
    known = [code for code in codes if code in corpus.columns]

    def items(split: str) -> Items:
        found = {code: next_segment(corpus, code, split, seed=config.seed) for code in known}
        short = {i.id for i in found[pivot] if len(i.context) + sum(map(len, i.choices)) <= config.longest}
        return {code: [item for item in own if item.id in short] for code, own in found.items()}

    dev, test = items("dev"), items("test")
    if not dev[pivot]:
        order = {item.id: number for number, item in enumerate(test[pivot])}
        dev, test = (
            {c: [i for i in own if order.get(i.id, 2) % 2 == side] for c, own in test.items()} for side in (0, 1)
        )
    task = SteeringTask(
        name="technical help" if corpus.name == "tech" else corpus.name,
        pivot=pivot,
        texts=tuple(filter(None, corpus.texts(pivot, _rows(corpus, config)))),
        generic=_generic(tokenizer, generic, pivot, config),
        dev=common_items(dev, pivot, config.dev),
        test=common_items(test, pivot, config.test),
        per_byte=True,
        left_out={code: f"corpus {corpus.name!r} does not have it" for code in codes if code not in known},
    )
    return _usable(tokenizer, task)


def common_items(items: Mapping[str, Sequence[ChoiceItem]], pivot: str, limit: int) -> Items:
    """The same items in every language as far as it has them: of the pivot's, those that most languages have, in an
    order that does not depend on how many are asked for."""
    held = Counter(item.id for own in items.values() for item in own)
    names = [item.id for item in items[pivot]]
    kept = set(sorted(names, key=lambda name: (-held[name], hash_fraction(f"steering/{name}")))[:limit])
    return {code: [item for item in own if item.id in kept] for code, own in items.items()}


def _rows(corpus: Corpus, config: TaskConfig) -> list[int]:
    """Rows of the training split, or of the first that is not empty."""
    split = next(split for split in SPLITS if corpus.split(split))
    return RoutingConfig(max_segments=config.segments, split=split).rows(corpus)


def _generic(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, pivot: str, config: TaskConfig
) -> dict[str, list[str]]:
    """Generic text by language on the same segments, the pivot first; languages with too little are not there.

    Raises:
        CorpusError: the corpus has too little of the pivot, or of every other language.
    """
    rows = _rows(corpus, config)
    codes = list(dict.fromkeys([pivot, *(c for c in corpus.languages if c in (config.languages or corpus.languages))]))
    texts = {code: corpus.texts(code, rows) for code in codes}
    found = {code: read(tokenizer, own, MAX_TOKENS) for code, own in texts.items()}
    if problem := found[pivot][1]:
        raise CorpusError(f"corpus {corpus.name!r} in {pivot!r}: {problem}")
    usable = {code: [texts[code][i] for i in kept.index] for code, (kept, problem) in found.items() if not problem}
    if len(usable) < 2:
        raise CorpusError(f"corpus {corpus.name!r} has no second language to find multilingual experts with")
    return usable


def _usable(tokenizer: PreTrainedTokenizerBase, task: SteeringTask) -> SteeringTask:
    """The task without the languages that have too few items or that the tokenizer cannot read."""
    problems = dict(task.left_out)
    for code, own in task.test.items():
        fewest = min(len(own), len(task.dev[code]))
        if fewest < FEWEST:
            problems[code] = f"{fewest} items in a split, ten are the fewest"
        elif problem := read(tokenizer, [item.context for item in own], MAX_TOKENS)[1]:
            problems[code] = problem
    kept = [code for code in task.test if code not in problems]
    if task.pivot not in kept or len(kept) < 2:
        told = "; ".join(f"{code}: {reason}" for code, reason in problems.items())
        raise CorpusError(f"{task.name}: no language but {task.pivot!r} can be steered ({told})")
    dev, test = ({code: side[code] for code in kept} for side in (task.dev, task.test))
    return replace(task, dev=dev, test=test, left_out=problems)
