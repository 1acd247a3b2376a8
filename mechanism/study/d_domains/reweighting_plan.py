"""What re-weighting is tried on and with: choice items and text of each task, and sets of experts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus import word_problems
from ...corpus.store import Corpus, CorpusError
from ...corpus.tasks import ChoiceItem, next_segment, word_problem_items
from ...measure.documents import Domains
from ...measure.specialisation import activation_rate, cwas
from ...models.scoring import token_counter
from ...trace import ScaleWeight
from ...trace.interventions import Targets
from ..base.texts import even
from ..base.trials import Setting, matched, targets_of
from .domain_passes import documents, route
from .domain_text import Piece, pieces
from .sweep import DRIVERS

NONE, DOMAIN, DRIVER = "none", "domain", "driver"
RANDOM = {DOMAIN: "random for domain", DRIVER: "random for driver"}
PROBLEMS = "problems"
CONTEXT, CHOICE, CHARS = 200, 120, 400
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
        counter = token_counter(tokenizer)
        found.dev[PROBLEMS], found.test[PROBLEMS] = (
            word_problem_items(code, counter, split, items, seed=seed) for split in ("dev", "test")
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


def _solved(code: str, count: int, seed: int) -> list[Piece]:
    """Documents of solved dev problems."""
    lines = list(map("".join, word_problems.solved("dev", count * _PER_DOCUMENT, code, seed)))
    texts = ["\n".join(lines[i : i + _PER_DOCUMENT]) for i in range(0, len(lines), _PER_DOCUMENT)]
    return [Piece(PROBLEMS, code, str(i), text) for i, text in enumerate(texts)]


def side_texts(corpora: Sequence[Corpus], code: str, count: int, languages: Sequence[str] | None = None) -> list[Piece]:
    """Held-out text of every domain, at most `count` pieces, and half as many of each other language of those that have
    some."""
    found = []
    for corpus in corpora:
        others = [c for c in corpus.languages if c != code and (languages is None or c in languages)]
        found += pieces(corpus, code, "test", count, CHARS)
        found += [piece for other in others for piece in pieces(corpus, other, "test", max(1, count // 2), CHARS)]
    return found


@dataclass(frozen=True)
class Way:
    """One re-weighting: which experts (`none`, `domain`, `driver`, or random ones that match either), the `share` of
    all experts they are, and the `factor` on their weight.

    Attributes:
        draw: number of the random set; of: whose domain experts, the task's own without it.
    """

    kind: str = NONE
    factor: float = 1.0
    share: float = 0.0
    draw: int = -1
    of: str = ""


@dataclass(frozen=True, eq=False)
class ExpertSets:
    """What sets of experts are cut from.

    Attributes:
        found: `score` (CWAS) and `rate` of activation `(task, layer, expert)`, and causal `effect` `(layer, expert)`.
    """

    found: xr.Dataset

    def chosen(self, way: Way, task: str) -> np.ndarray:
        """The set `(layer, expert)` of domain experts or drivers on a task: the largest scores of all layers, at most
        half of the experts of a layer so that as many are left to match."""
        values = self.found["effect"] if way.kind == DRIVER else self.found["score"].sel(task=way.of or task)
        return strongest(values.values, max(1, round(way.share * values.size)))

    def targets(self, way: Way) -> dict[str, Targets]:
        """The set of each task."""
        layers = self.found["layer"].values.tolist()
        return {task: targets_of(self.chosen(way, task), layers) for task in self.found["task"].values.tolist()}

    def setting(self, way: Way) -> Setting:
        """What is tried, task by task."""
        if way.kind == NONE or way.factor == 1:
            return Setting(asdict(way))
        return Setting(asdict(way), {n: ScaleWeight(own, factor=way.factor) for n, own in self.targets(way).items()})

    def random(self, way: Way, draws: int, seed: int = 0) -> list[Setting]:
        """Random experts in place of a way's, matched in frequency on the task's text for domain experts, and on all
        tasks' text for drivers."""
        layers, rate = self.found["layer"].values.tolist(), self.found["rate"]
        rate = rate if way.kind == DOMAIN else rate.mean("task").expand_dims(task=rate["task"])
        own = self.targets(way)
        drawn = {task: matched(own[task], layers, rate.sel(task=task).values, draws, seed) for task in own}
        return [
            Setting(
                asdict(replace(way, kind=RANDOM[way.kind], draw=draw)),
                {task: ScaleWeight(sets[draw], factor=way.factor) for task, sets in drawn.items()},
            )
            for draw in range(draws)
        ]

    def dataset(self, chosen: Mapping[str, Way]) -> xr.Dataset:
        """The chosen sets, and what they are the largest of."""
        cells, tasks = ("layer", "expert"), self.found["task"].values.tolist()
        sets = {
            "domain_set": (("task", *cells), np.stack([self.chosen(chosen[DOMAIN], task) for task in tasks])),
            "driver_set": (cells, self.chosen(chosen[DRIVER], "")),
        }
        choice = {f"chosen_{n}": ("chosen", [getattr(own, n) for own in chosen.values()]) for n in ("factor", "share")}
        return self.found.drop_vars("rate").assign(sets | choice).assign_coords(chosen=list(chosen))


def strongest(values: np.ndarray, count: int) -> np.ndarray:
    """The cells `(layer, expert)` with the largest values above 0, at most half of a layer."""
    ranks = np.argsort(np.argsort(-values, axis=1, kind="stable"), axis=1, kind="stable")
    allowed = (ranks < values.shape[1] // 2) & (values > 0)
    order = np.argsort(np.where(allowed, -values, np.inf), axis=None, kind="stable")[: min(count, int(allowed.sum()))]
    found = np.zeros(values.size, dtype=bool)
    found[order] = True
    return found.reshape(values.shape)


def expert_sets(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, made: Tasks, drivers: str, driver_texts: int
) -> ExpertSets:
    """Scores of experts on dev text: CWAS by task; the causal effect, on so many texts, by a ranking of `DRIVERS`."""
    routed = route(model, tokenizer, made.texts, contributions=False)
    domains = Domains(documents(routed))
    cells, texts = ("layer", "expert"), [piece.text for piece in even(made.texts, driver_texts)]
    data = {n: ((*cells, "task"), own) for n, own in (("score", cwas(domains)), ("rate", activation_rate(domains)))}
    effect = DRIVERS[drivers](model, tokenizer, texts)
    coords = {"task": list(map(str, domains.documents.names)), "layer": routed["layer"].values}
    found = xr.Dataset(data | {"effect": (cells, effect)}, coords | {"expert": np.arange(effect.shape[1])})
    return ExpertSets(found.sel(task=list(made.dev)).transpose("task", *cells))
