"""A grid of training runs: the multi-head experiment as data, its runs, and in which order they are made."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ...nn import parity
from ...nn.auto import LayerConfig
from ...nn.moe import SparseMoEConfig
from ...nn.multihead import MultiHeadMoEConfig
from ...nn.train_config import TrainConfig
from ...nn.variants import VariantConfig
from ..base import runs as training_runs
from ..grid.english import TextConfig
from ..grid.recorded_run import RecordedRun

CELLS = {"heads2_none": (False, False), "heads2_head": (True, False), "heads2_merge": (False, True)}
VARIANTS = ("dense", "sparse", "fine_grained", "heads2", "heads3", *CELLS)


@dataclass(frozen=True)
class Block:
    """Variants that are compared.

    Attributes:
        variants: of `VARIANTS`; seeds: 0 to this number less one.
        shared: every sparse layer gets a shared expert as wide as the baseline's experts; precision: `full` or `b1.58`.
        rate_of: block and variant whose learning rate is taken; None to choose one for each variant.
    """

    variants: tuple[str, ...]
    seeds: int
    shared: bool = False
    precision: str = "full"
    rate_of: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Tuning:
    """Short runs that choose a learning rate: `rates`, `tokens` of each, and their `seed`."""

    rates: tuple[float, ...]
    tokens: int
    seed: int


@dataclass(frozen=True)
class GridRun(RecordedRun):
    """One run of a grid.

    Attributes:
        grid, block, variant: where it belongs; tuning: whether it only chooses a learning rate.
        train: architecture and optimisation; text: what is scored; data: content hash of the corpora.
    """

    grid: str
    block: str
    variant: str
    tuning: bool
    train: TrainConfig
    text: TextConfig
    data: str

    @cached_property
    def hash(self) -> str:
        """Content address, of what decides the numbers: twelve hexadecimal digits of its SHA-256."""
        payload = {"train": asdict(self.train), "text": asdict(self.text), "data": self.data, "tuning": self.tuning}
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def usable(self) -> bool:
        """Whether it was made and did not diverge."""
        return self.done and "diverged" not in self.result()

    @property
    def name(self) -> str:
        """For people."""
        what = f"rate {self.train.lr:g}" if self.tuning else f"seed {self.train.seed}"
        return f"{self.block} {self.variant} {what}"


@dataclass(frozen=True)
class Grid:
    """The experiment.

    Attributes:
        name: of its file; baseline: the sparse layer that all others are at parity with; frame: fields of
            `VariantConfig`; vocab: rows of the embedding.
        train: fields of `TrainConfig` that all runs share; tuning, blocks, text: see there; data: content hash.
    """

    name: str
    baseline: SparseMoEConfig
    frame: Mapping[str, int]
    vocab: int
    train: Mapping[str, Any]
    tuning: Tuning
    blocks: Mapping[str, Block]
    text: TextConfig = TextConfig()
    data: str = field(default_factory=training_runs.data_hash)

    def layer(self, block: str, variant: str) -> LayerConfig:
        """The feed-forward layer of a variant."""
        own = self.blocks[block]
        shared = self.baseline.width if own.shared else 0
        return variant_layer(replace(self.baseline, precision=own.precision, shared_width=shared), variant)

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
            return self.rate(**source)
        runs = self.tuning_runs(block, variant)
        if not all(run.done for run in runs):
            return None
        tried = [(run.result()["dev"]["loss"], run.train.lr) for run in runs]
        kept = [pair for pair in tried if pair[0] is not None]
        if not kept:
            raise ValueError(f"every learning rate of {block} {variant} diverged: give {self.name} lower ones")
        return min(kept)[1]

    def runs(self, block: str, variant: str) -> list[GridRun]:
        """A variant's runs, one for each seed; none while its learning rate is not known."""
        rate = self.rate(block, variant)
        seeds = range(self.blocks[block].seeds if rate else 0)
        return [self.run(block, variant, lr=rate, seed=seed) for seed in seeds]

    def complete(self, block: str) -> bool:
        """Whether all runs of a block are there."""
        found = [self.runs(block, variant) for variant in self.blocks[block].variants]
        return all(runs and all(run.done for run in runs) for runs in found)

    def cells(self) -> Iterator[tuple[str, str]]:
        """Every block and variant."""
        for name, block in self.blocks.items():
            yield from ((name, variant) for variant in block.variants)

    def missing_runs(self) -> Iterator[GridRun]:
        """The runs that are missing and can be made: seed after seed, the learning rates before seed 0."""
        for seed in range(max(block.seeds for block in self.blocks.values())):
            for block, variant in self.cells():
                if seed < self.blocks[block].seeds:
                    source = self.blocks[block].rate_of or {"block": block, "variant": variant}
                    wanted = self.tuning_runs(**source) if seed == 0 else []
                    wanted += self.runs(block, variant)[seed : seed + 1]
                    yield from (run for run in wanted if not run.done)

    def size(self) -> int:
        """Number of runs in all."""
        tuned = sum(len(self.tuning_runs(*cell)) for cell in self.cells())
        return tuned + sum(len(block.variants) * block.seeds for block in self.blocks.values())

    def run(self, block: str, variant: str, tuning: bool = False, **train: Any) -> GridRun:
        """A run of a variant, with fields of `TrainConfig` that are its own."""
        config = TrainConfig(model=self.model(block, variant), **{**self.train, **train})
        return GridRun(self.name, block, variant, tuning, config, self.text, self.data)


def variant_layer(baseline: SparseMoEConfig, variant: str) -> LayerConfig:
    """A layer at parity with the baseline, by name: `dense`, `sparse`, `fine_grained` (twice the slots), `headsN` (N
    heads and N slots), and two heads without head or merge layer, their experts kept.

    Weights are normalised over several slots; with one they cannot be.

    Raises:
        ValueError: no such name; ParityError: no layer of whole numbers is at parity.
    """
    if variant == "dense":
        return parity.dense(replace(baseline, shared_width=0))
    if variant == "sparse":
        return baseline
    if variant == "fine_grained":
        layer = parity.fine_grained(baseline, 2 * baseline.top_k)
    elif variant in ("heads2", "heads3"):
        heads = int(variant[-1])
        layer = parity.multi_head(baseline, heads, heads)
    elif variant in CELLS:
        full = variant_layer(baseline, "heads2")
        assert isinstance(full, MultiHeadMoEConfig)
        head, merge = CELLS[variant]
        layer = replace(full, head=head, merge=merge)
    else:
        raise ValueError(f"unknown variant {variant!r}; use {', '.join(VARIANTS)}")
    return replace(layer, normalise=layer.top_k > 1)


def grid_path(name: str) -> Path:
    """File of a committed grid, or the file itself.

    Raises:
        FileNotFoundError: there is none; the message lists the committed ones.
    """
    path = Path(name) if name.endswith(".yaml") else training_runs.CONFIGS / "grids" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (training_runs.CONFIGS / "grids").glob("*.yaml")))
        raise FileNotFoundError(f"no grid at {path}; committed ones: {known}")
    return path


def load_grid(name: str) -> Grid:
    """A committed grid by name, or the grid of a `.yaml` file.

    Raises:
        FileNotFoundError: there is none; the message lists the committed ones.
        TypeError, KeyError: a field that does not exist, or a missing one.
    """
    path = grid_path(name)
    payload = yaml.safe_load(path.read_text("utf-8"))
    tuning = payload.pop("tuning")
    baseline = SparseMoEConfig(**payload.pop("baseline"))
    blocks = {key: _block(key, fields) for key, fields in payload.pop("blocks").items()}
    train = payload.pop("train")
    train["probes"] = tuple(train.get("probes", ()))
    return Grid(
        path.stem, baseline, train=train, text=TextConfig(**payload.pop("text", {})), blocks=blocks,
        tuning=Tuning(**{**tuning, "rates": tuple(tuning["rates"])}), **payload,
    )  # fmt: skip


def _block(name: str, fields: Mapping[str, Any]) -> Block:
    block = Block(**{**fields, "variants": tuple(fields["variants"])})
    if unknown := [variant for variant in block.variants if variant not in VARIANTS]:
        raise ValueError(f"block {name} has unknown variants {', '.join(unknown)}; use {', '.join(VARIANTS)}")
    return block
