"""The grid of models of clone languages: what they are trained on, and what is kept of each."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ...corpus.clones import CloneConfig, CloneStream
from ...corpus.library import DATA
from ...corpus.tokenizer import load_tokenizer
from ...nn.checkpoint import checkpoint_files, read_checkpoint
from ...nn.lm import LMConfig
from ...nn.train_config import TrainConfig
from ...nn.training import Trainer
from ..base import runs as training_runs
from ..base.probe_log import ProbeLog, join_probes, write_stats
from ..grid.english import english_tokens
from ..grid.run import Planned, RecordedRun, RunGrid, Workshop
from .routing import PACKED, HeldOut, held_segments, observe_clones, summed_up

ENGLISH = DATA / "tokenizer_english"
SEGMENTS, PROBES = "segments.nc", "probes.nc"


@dataclass(frozen=True)
class Cell:
    """What a set of runs differs in: fields of the grid's `model`, `train` and `clones` that are its own, how many
    `seeds` it has (0 for the grid's), and whether its `weights` are written to the cache."""

    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    clones: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 0
    weights: bool = False


@dataclass(frozen=True)
class CloneRun(RecordedRun):
    """One run.

    Attributes:
        grid, cell: where it belongs; train, clones, held: what it is, reads, and is observed on; weights: see `Cell`;
            data: content hash of the corpora and of the tokenizer.
    """

    aside = ("grid", "cell", "weights")
    cell: str
    clones: CloneConfig
    held: HeldOut
    weights: bool
    data: str

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell}, seed {self.train.seed}"

    @property
    def exported(self) -> Path:
        """Where its weights are, rounded to bfloat16, if they are kept: in the cache."""
        return training_runs.cache_folder() / "weights" / self.grid / f"{self.hash}.safetensors"


@dataclass(frozen=True)
class CloneGrid(RunGrid[CloneRun]):
    """The experiment; fields as in its file, `rules` as text: fixed before the first run."""

    name: str
    model: Mapping[str, Any]
    train: Mapping[str, Any]
    clones: Mapping[str, Any]
    held: HeldOut
    seeds: int
    cells: Mapping[str, Cell]
    rules: Mapping[str, Any]
    data: str = field(default_factory=lambda: clone_data())

    def run(self, name: str, seed: int) -> CloneRun:
        """One run of a cell."""
        cell = self.cells[name]
        train = {**self.train, **cell.train}
        config = TrainConfig(
            model=LMConfig(**{**self.model, **cell.model}), seed=seed, **{**train, "probes": tuple(train["probes"])}
        )
        clones = {**self.clones, **cell.clones}
        stream = CloneConfig(**{**clones, "shares": tuple(map(float, clones["shares"]))})
        return CloneRun(self.name, config, name, stream, self.held, cell.weights, self.data)

    def runs(self, name: str) -> list[CloneRun]:
        """A cell's runs, one for each seed."""
        return [self.run(name, seed) for seed in range(self.cells[name].seeds or self.seeds)]

    def planned(self) -> Iterator[Planned]:
        """Cell after cell, in the file's order."""
        for name in self.cells:
            for run in self.runs(name):
                yield Planned(name, run.train.steps, run)

    def figure_of(self, result: dict[str, Any]) -> float:
        """Nats per token of English."""
        return result["loss"]["en"]

    def workshop(self) -> "CloneWorkshop":
        """See `RunGrid`.

        Raises:
            ValueError: see `clone_ids`.
        """
        return CloneWorkshop()


class CloneWorkshop(Workshop[CloneRun]):
    """English, read once for all runs."""

    def __init__(self) -> None:
        self.tokenizer = load_tokenizer(ENGLISH)
        self.columns, _ = english_tokens(self.tokenizer)

    def stream(self, run: CloneRun) -> CloneStream:
        """What a run reads."""
        return CloneStream(run.clones, self.tokenizer, self.columns, run.train.model.vocab)

    def trainer(self, run: CloneRun) -> Trainer:
        """The run's trainer at its newest checkpoint."""
        stream, config = self.stream(run), run.train
        segments = held_segments(run.held, self.tokenizer, "dev")
        probe = partial(observe_clones, stream=stream, segments=segments)
        log = ProbeLog(run.workspace / "probes", lambda model: summed_up(probe(model)))
        return Trainer(
            config, lambda step: stream.batch(config.seed, step, config.batch, config.length), run.workspace, log
        )

    def measure(self, run: CloneRun, trainer: Trainer) -> dict[str, Any]:
        """Write `probes.nc`, means over dev segments along training, and `segments.nc`, every test segment at the end;
        returns losses and tokens read by language."""
        stream, names = self.stream(run), run.clones.names
        write_stats(join_probes(run.workspace / "probes"), run.record / PROBES)
        segments = held_segments(run.held, self.tokenizer, "test")
        found = observe_clones(trainer.model, stream, segments, consistency=True)
        write_stats(found, run.record / SEGMENTS, [name for name in PACKED if name in found])
        if run.weights:
            run.exported.parent.mkdir(parents=True, exist_ok=True)
            files = checkpoint_files(run.workspace)
            read_checkpoint(files[max(files)]).weights().write(run.exported)
        model, read = run.train.model, stream.tokens_read(run.train.seed, run.train.tokens)
        return {
            "loss": dict(zip(names, found["nll"].mean("segment").values.round(4).tolist(), strict=True)),
            "read": dict(zip(names, read.round().tolist(), strict=True)),
            "parameters": model.parameters(), "active_parameters": model.active_parameters(),
        }  # fmt: skip


def clone_data() -> str:
    """Content hash of the corpora and of the tokenizer of English."""
    digest = hashlib.sha256(training_runs.data_hash().encode())
    digest.update((ENGLISH / "tokenizer.json").read_bytes())
    return digest.hexdigest()[:16]


def load_grid(name: str, fields: dict[str, Any]) -> CloneGrid:
    """The grid of a file's fields.

    Raises:
        TypeError: a field that does not exist, or a missing one.
        ValueError: see `CloneConfig`.
    """
    cells = {key: Cell(**cell or {}) for key, cell in fields.pop("cells").items()}
    grid = CloneGrid(name=name, held=HeldOut(**fields.pop("held")), cells=cells, **fields)
    for plan in grid.planned():  # so that a cell that cannot be is refused before the first run
        assert plan.run
    return grid
