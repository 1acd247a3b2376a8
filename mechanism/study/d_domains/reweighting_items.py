"""What re-weighting is tried on: choice items of each domain and word problems, and the text that experts are found
with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from ...corpus import word_problems
from ...corpus.store import Corpus, CorpusError
from ...corpus.tasks import ChoiceItem, next_segment, word_problem_items
from ...corpus.text import even
from .domain_text import Piece, pieces

PROBLEMS = "problems"
CONTEXT, CHOICE = 200, 120
FEWEST_ITEMS = 2
_PER_DOCUMENT = 8


@dataclass(frozen=True)
class Tasks:
    """Items by task; a task is a domain, or word problems.

    Attributes:
        dev, test: items; texts: text of each task that experts are found with, of the dev split.
        left_out: domains without items, with the reason.
    """

    dev: dict[str, list[ChoiceItem]]
    test: dict[str, list[ChoiceItem]]
    texts: list[Piece]
    left_out: dict[str, str] = field(default_factory=dict)


def tasks(
    tokenizer: PreTrainedTokenizerBase, corpora: Sequence[Corpus], code: str, items: int, count: int, seed: int = 0
) -> Tasks:
    """Which text continues a document, in each domain, and word problems where there are some in the language.

    Args:
        items: per task and split; count: pieces of text per task.

    Raises:
        CorpusError: fewer than two tasks are left.
    """
    found = Tasks({}, {}, [])
    for corpus in corpora:
        dev, test = (_continuations(corpus, code, split, items, seed) for split in ("dev", "test"))
        text = pieces(corpus, code, "dev", count)
        if min(len(dev), len(test)) < FEWEST_ITEMS or not text:
            found.left_out[corpus.domain] = f"{len(dev)} dev and {len(test)} test items"
            continue
        found.dev[corpus.domain], found.test[corpus.domain] = dev, test
        found.texts.extend(text)
    if code in word_problems.languages():
        found.dev[PROBLEMS], found.test[PROBLEMS] = (
            _problems(tokenizer, code, split, items, seed) for split in ("dev", "test")
        )
        found.texts.extend(_solved(code, count, seed))
    if len(found.dev) < 2:
        told = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
        raise CorpusError(
            f"re-weighting is chosen on dev items and reported on test items of at least two tasks; left out: {told}"
        )
    return found


def _continuations(corpus: Corpus, code: str, split: str, count: int, seed: int) -> list[ChoiceItem]:
    """Next-segment items of the domain, cut so that passes are short, without those whose choices are then equal."""
    cut = [_cut(item) for item in next_segment(corpus, code, split, seed=seed)]
    distinct = [item for item in cut if len(set(item.choices)) == len(item.choices)]
    return even(distinct, count)


def _cut(item: ChoiceItem) -> ChoiceItem:
    return replace(item, context=item.context[-CONTEXT:], choices=tuple(text[:CHOICE] for text in item.choices))


def _problems(tokenizer: PreTrainedTokenizerBase, code: str, split: str, count: int, seed: int) -> list[ChoiceItem]:
    def tokens(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return word_problem_items(code, tokens, split, count, seed=seed)


def _solved(code: str, count: int, seed: int) -> list[Piece]:
    """Documents of solved dev problems."""
    made = word_problems.evaluation_set("dev", count * _PER_DOCUMENT, seed)
    lines = [word_problems.prompt(p.question(code)) + word_problems.solution(p, code) for p in made]
    return [
        Piece(PROBLEMS, code, str(i), "\n".join(lines[i * _PER_DOCUMENT : (i + 1) * _PER_DOCUMENT]))
        for i in range(count)
    ]
