"""A grid of training runs: the multi-head experiment as data, its runs, and in which order they are made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...nn import parity
from ...nn.auto import LayerConfig
from ...nn.moe import SparseMoEConfig
from ...nn.train_config import TrainConfig
from ...nn.variants import VariantConfig
from ..base import runs as training_runs
from ..grid.english import TextConfig
from ..grid.run import Planned, RunGrid
from .training import EnglishWorkshop, GridRun

HEADS = {
    "heads2": (2, 2, True, True), "heads3": (3, 3, True, True), "heads4": (4, 4, True, True),
    "heads6": (6, 6, True, True), "heads2_none": (2, 2, False, False), "heads2_head": (2, 2, True, False),
    "heads2_merge": (2, 2, False, True), "sparse_both": (1, 1, True, True), "fine_grained_both": (1, 2, True, True),
}  # fmt: skip
"""Heads of a variant, its slots for each of the baseline's, and whether it has a head and a merge layer."""
LABELS = {
    "dense": "dense", "sparse": "sparse", "fine_grained": "fine-grained", "heads2": "2 heads", "heads3": "3 heads",
    "heads4": "4 heads", "heads6": "6 heads", "sparse_both": "sparse, both layers",
    "fine_grained_both": "fine-grained, both layers",
    "heads2_none": "neither layer", "heads2_head": "head layer only", "heads2_merge": "merge layer only",
}  # fmt: skip
VARIANTS = tuple(LABELS)


@dataclass(frozen=True)
class Block:
    """Variants that are compared, of `VARIANTS`, over `seeds` from 0.

    Attributes:
        shared: every sparse layer gets a shared expert as wide as the baseline's experts; precision: `full` or `b1.58`.
        rate_of: block and variant whose learning rate is taken, of its own variant where none is named; None to choose
            one for each variant.
        experts: number of experts of the baseline, 0 for the grid's.
    """

    variants: tuple[str, ...]
    seeds: int
    shared: bool = False
    precision: str = "full"
    rate_of: Mapping[str, str] | None = None
    experts: int = 0


@dataclass(frozen=True)
class Tuning:
    """Short runs that choose a learning rate: `rates`, `tokens` of each, and their `seed`."""

    rates: tuple[float, ...]
    tokens: int
    seed: int


@dataclass(frozen=True)
class Grid(RunGrid[GridRun]):
    """The experiment; fields as in its file. `baseline` is the sparse layer that all others are at parity with, `frame`
    holds fields of `VariantConfig`, `vocab` is rows of the embedding, `train` fields of `TrainConfig` of all runs."""

    name: str
    baseline: SparseMoEConfig
    frame: Mapping[str, int]
    vocab: int
    train: Mapping[str, Any]
    tuning: Tuning
    blocks: Mapping[str, Block]
    figure = ("ppl", 2)
    text: TextConfig = TextConfig()
    data: str = field(default_factory=training_runs.data_hash)

    def layer(self, block: str, variant: str) -> LayerConfig:
        """The feed-forward layer of a variant."""
        own = self.blocks[block]
        shared = self.baseline.width if own.shared else 0
        experts = own.experts or self.baseline.experts
        return variant_layer(
            replace(self.baseline, precision=own.precision, shared_width=shared, experts=experts), variant
        )

    def model(self, block: str, variant: str) -> VariantConfig:
        """The language model of a variant; its dense layers are as wide as an expert of the baseline."""
        return VariantConfig(
            self.layer(block, variant), vocab=self.vocab, dense_width=self.baseline.width,
            projections=self.blocks[block].precision, **self.frame,
        )  # fmt: skip

    def tuning_runs(self, block: str, variant: str) -> list[GridRun]:
        """The runs that choose a variant's learning rate; none where another variant's is taken."""
        if self.blocks[block].rate_of:
            return []
        short = {"tokens": self.tuning.tokens, "seed": self.tuning.seed}
        return [self.run(block, variant, True, lr=rate, **short) for rate in self.tuning.rates]

    def rate(self, block: str, variant: str) -> float | None:
        """The learning rate of lowest dev loss, the lower of two equals; None while a tuning run is missing.

        Raises:
            ValueError: all of them diverged.
        """
        if source := self.blocks[block].rate_of:
            return self.rate(**{"variant": variant, **source})
        runs = self.tuning_runs(block, variant)
        if not all(run.done for run in runs):
            return None
        kept = [(run.result()["dev"]["loss"], run.train.lr) for run in runs if run.usable]
        if not kept:
            raise ValueError(f"every learning rate of {block} {variant} diverged: give {self.name} lower ones")
        return min(kept)[1]

    def runs(self, block: str, variant: str) -> list[GridRun]:
        """A variant's runs, one for each seed; none while its learning rate is not known."""
        rate = self.rate(block, variant)
        seeds = range(self.blocks[block].seeds if rate else 0)
        return [self.run(block, variant, lr=rate, seed=seed) for seed in seeds]

    def complete(self, *blocks: str) -> bool:
        """Whether the grid has these blocks, and all their runs are there."""
        if not set(blocks) <= set(self.blocks):
            return False
        found = [self.runs(*cell) for cell in self.cells() if cell[0] in blocks]
        return all(runs and all(run.done for run in runs) for runs in found)

    def cells(self) -> Iterator[tuple[str, str]]:
        """Every block and variant."""
        for name, block in self.blocks.items():
            yield from ((name, variant) for variant in block.variants)

    def planned(self) -> Iterator[Planned]:
        """Every run, seed after seed, the learning rates before seed 0."""
        for seed in range(max(block.seeds for block in self.blocks.values())):
            for block, variant in self.cells():
                tried = self.tuning_runs(block, variant) if seed == 0 else []
                yield from (Planned(f"{block} {LABELS[variant]} rates", run.train.steps, run) for run in tried)
                if seed < self.blocks[block].seeds:
                    rate = self.rate(block, variant)
                    run = self.run(block, variant, lr=rate, seed=seed) if rate else None
                    yield Planned(f"{block} {LABELS[variant]}", self.run(block, variant).train.steps, run)

    def workshop(self) -> EnglishWorkshop:
        """See `RunGrid`."""
        return EnglishWorkshop(self.text, self.vocab)

    def figure_of(self, result: Mapping[str, Any]) -> float:
        """Perplexity of the test windows, of the dev windows where only they are scored."""
        return float(np.exp(result.get("test", result["dev"])["loss"]))

    def run(self, block: str, variant: str, tuning: bool = False, **train: Any) -> GridRun:
        """A run of a variant, with fields of `TrainConfig` that are its own."""
        config = TrainConfig(model=self.model(block, variant), **{**self.train, **train})
        return GridRun(self.name, config, block, variant, tuning, self.text, self.data)


def variant_layer(baseline: SparseMoEConfig, variant: str) -> LayerConfig:
    """A layer at parity with the baseline, by one of `VARIANTS`: `fine_grained` has twice the slots, `headsN` N heads
    and N slots, `_both` one head with head and merge layer; two heads without one of these layers keep their experts.

    Weights are normalised over several slots; with one they cannot be.

    Raises:
        ParityError: no layer of whole numbers is at parity.
    """
    if variant == "dense":
        return parity.dense(replace(baseline, shared_width=0))
    if variant == "sparse":
        return baseline
    if variant == "fine_grained":
        layer = parity.fine_grained(baseline, 2 * baseline.top_k)
    else:
        heads, slots, head, merge = HEADS[variant]
        layer = replace(parity.multi_head(baseline, heads, slots * baseline.top_k), head=head, merge=merge)
    return replace(layer, normalise=layer.top_k > 1)


def load_grid(name: str, fields: dict[str, Any]) -> Grid:
    """The grid of a file's fields.

    Raises:
        TypeError, KeyError: a field that does not exist, or a missing one.
    """
    tuning, baseline = fields.pop("tuning"), SparseMoEConfig(**fields.pop("baseline"))
    blocks = {key: _block(key, own) for key, own in fields.pop("blocks").items()}
    fields["train"]["probes"] = tuple(fields["train"].get("probes", ()))
    return Grid(
        name, baseline, text=TextConfig(**fields.pop("text", {})), blocks=blocks,
        tuning=Tuning(**{**tuning, "rates": tuple(tuning["rates"])}), **fields,
    )  # fmt: skip


def _block(name: str, fields: Mapping[str, Any]) -> Block:
    block = Block(**{**fields, "variants": tuple(fields["variants"])})
    if unknown := [variant for variant in block.variants if variant not in VARIANTS]:
        raise ValueError(f"block {name} has unknown variants {', '.join(unknown)}; use {', '.join(VARIANTS)}")
    return block
