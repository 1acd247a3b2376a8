"""The driver experts without a full sweep: all experts ranked by a cheap statistic, the contested ones raced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import beta
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measure.causal import Effects, top_count, top_experts
from ...measure.racing import Race, RaceResult
from ...models.passes import batches_by_length, encode, padding_token
from ...trace.restart import decoder_layers
from ...trace.sites import Site, find_sites
from .cheap import GRADIENTS, cheap_statistics
from .domain_text import Piece, SweepConfig, balanced, passages
from .driver_experts import Swept
from .effects import BatchSweep
from .sweep import OPTIONS, Plan, SweepOptions


@dataclass(frozen=True)
class SearchConfig:
    """What is searched, and how hard.

    Attributes:
        sweep: texts; its first mode is raced.
        share: of the experts that are looked for; confidence, budget: of the race.
        control: cheap statistic that the race is helped by.
    """

    sweep: SweepConfig = field(default_factory=SweepConfig)
    share: float = 0.05
    confidence: float = 0.95
    budget: float = 0.1
    control: str = "relative"


SEARCH = SearchConfig()


def effects_of(values: np.ndarray, tokens: np.ndarray, texts: Sequence[Piece]) -> Effects:
    """Effect sums `(sequence, layer, expert)` with the texts' labels: domains count equally and in each its languages,
    documents are drawn within domains."""
    cells, domain, document = np.array([(f"{p.domain} {p.lang}", p.domain, p.document) for p in texts]).T
    return Effects(values, tokens, cells, domain, document)


def places(order: np.ndarray) -> np.ndarray:
    """`(item,)` where each of the items stands in an order, in (0, 1)."""
    found = np.empty(len(order))
    found[order] = (np.arange(len(order)) + 0.5) / len(order)
    return found


class Costs:
    """Multiplications by weights that passes take, for a budget that does not depend on the machine."""

    def __init__(self, model: PreTrainedModel, sites: Sequence[Site], lengths: np.ndarray) -> None:
        stack = list(decoder_layers(model))
        total = sum(p.numel() for layer in stack for p in layer.parameters())
        idle = sum(sum(p.numel() for p in s.experts.parameters()) * (1 - s.top_k / s.num_experts) for s in sites)
        self.layer, self.depth = (total - idle) / len(stack), len(stack)
        self.head = model.get_output_embeddings().weight.numel()
        self.lengths, self.sites = lengths.astype(np.float64), sites

    @property
    def clean(self) -> np.ndarray:
        """`(sequence,)` of a clean pass."""
        return self.lengths * (self.depth * self.layer + self.head)

    @property
    def cheap(self) -> float:
        """Of all clean passes without the head."""
        return float(self.lengths.sum() * self.depth * self.layer)

    def ablated(self, selections: np.ndarray) -> np.ndarray:
        """`(layer, expert, sequence)` of ablating an expert; 0 in sequences that do not use it. In the last layer, only
        tokens that select the expert are run again."""
        left = np.array([self.depth - 1 - site.layer for site in self.sites], dtype=np.float64)
        used = np.moveaxis(selections > 0, 0, -1)
        rows = np.where(left[:, None, None] > 0, self.lengths, np.moveaxis(selections, 0, -1))
        return used * (left[:, None, None] * self.layer * self.lengths + rows * self.head)


@dataclass(frozen=True, eq=False)
class DriverSearch:
    """What a search found: `race`, and its `table` with layer, expert and each cheap statistic beside it."""

    race: RaceResult
    table: pd.DataFrame

    @property
    def drivers(self) -> pd.DataFrame:
        """The rows of the top."""
        return self.table.iloc[self.race.top]


def _flat(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(sequence, layer, expert)` as `(candidate, item)`, candidates numbered layer by layer; `scale` makes the mean
    over items the mean effect."""
    return (values * scale[:, None, None]).reshape(len(values), -1).T


def find_drivers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SearchConfig = SEARCH,
    options: SweepOptions = OPTIONS,
    say: Callable[[str], None] = lambda line: None,
) -> DriverSearch:
    """Find the experts with the largest mean effect: one clean pass over all texts for cheap statistics, then a race.

    Raises:
        CorpusError, TraceError: see `sweep`; ValueError: see `Race`.
    """
    texts = passages(config.sweep)
    ids = encode(tokenizer, [p.text for p in texts], config.sweep.max_tokens)
    padding = padding_token(tokenizer)
    plan = Plan(model, ids, padding, config.sweep.modes[:1], options)
    say(plan.describe())
    cheap = cheap_statistics(model, ids, padding, plan.tokens, int(config.control in GRADIENTS), config.sweep.seed)
    lengths = np.array([len(one) - 1 for one in ids])
    scale = effects_of(cheap[config.control], lengths, texts).share * len(ids)
    costs = Costs(model, plan.sites, lengths + 1)
    used = cheap["selections"]
    race = Race(top_count(used[0].size, config.share), config.confidence, config.budget)
    found = race(
        partial(_ablated, plan, scale), _flat(cheap[config.control], scale), costs.ablated(used).reshape(-1, len(ids)),
        places(np.arange(len(ids))), costs.clean, costs.cheap,
    )  # fmt: skip
    layer, expert = np.indices(used[0].shape).reshape(2, -1)
    names = np.array([site.layer for site in plan.sites])
    means = {name: effects_of(values, lengths, texts).mean().ravel() for name, values in cheap.items()}
    return DriverSearch(found, found.table.assign(layer=names[layer], expert=expert, **means))


def _ablated(plan: Plan, scale: np.ndarray, candidates: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Scaled effects `(pair,)` of candidates, numbered layer by layer, each on one sequence."""
    experts = max(site.num_experts for site in plan.sites)
    where = np.zeros((len(plan.ids), len(plan.sites), experts), dtype=bool)
    cells = items, *np.divmod(candidates, experts)
    where[cells], found, seen = True, np.zeros(where.shape), np.unique(items)
    for batch in batches_by_length([plan.ids[i] for i in seen], plan.tokens):
        ids, mask = plan.padded(seen[batch])
        found[seen[batch]] = BatchSweep(plan.model, ids, mask, plan.settings).run(where=where[seen[batch]]).kl[0]
    return found[cells] * scale[items]


def replayed(
    swept: Swept, model: PreTrainedModel, config: SearchConfig = SEARCH, orders: int = 100, mode: str = "zero"
) -> pd.DataFrame:
    """Races over the values of an exact sweep, in random orders of the segments that are balanced as `passages` are:
    one row an order, with `recall` of the exact top, `cost` as a share of the exact sweep's multiplications, how many
    experts stayed `undecided`, and how many were decided `wrongly`.

    Args:
        swept: a sweep with `control`; model: the same, or one of its shape, for its costs; mode: of ablation.
    """
    effects = swept.kl(mode)
    size, scale = len(effects.values), effects.share * len(effects.values)
    values, control = (_flat(own, scale) for own in (effects.values, swept.found["control"].values.astype(np.float64)))
    costs = Costs(model, find_sites(model), effects.tokens + 1)
    cost = costs.ablated(swept.found["selections"].values).reshape(-1, size)
    top = top_experts(effects.mean(), top_count(len(values), config.share)).ravel()
    race, rng, rows = Race(int(top.sum()), config.confidence, config.budget), np.random.default_rng(swept.seed), []
    for number in range(orders):
        order = places(balanced(effects.cell, rng))
        found = race(lambda which, items: values[which, items], control, cost, order, costs.clean, costs.cheap)
        wrongly = found.table["status"].to_numpy() == np.where(top, "out", "in")
        rows.append({"order": number, "recall": float(top[found.top].mean()), "cost": found.spent,
                     "undecided": found.undecided, "wrongly": int(wrongly.sum())})  # fmt: skip
    return pd.DataFrame(rows)


def recall_bound(recall: pd.Series, confidence: float = 0.95) -> float:
    """Lower bound of the mean recall over orders: Clopper and Pearson's, as if each order had found all or nothing,
    than which sums of shares vary less (Hoeffding 1956)."""
    hits = int(np.floor(recall.sum() + 1e-9))
    return float(beta.ppf(1 - confidence, hits, len(recall) - hits + 1)) if hits else 0.0
