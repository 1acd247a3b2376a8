"""The grid of chapter P as data: cells, their runs, and in which order they are made."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from ..corpus.language_stream import LanguageStreamConfig
from ..corpus.languages import language
from ..measure.clustering import cluster, cut
from ..measure.divergence import js_divergence
from ..nn.adapt import Tuning
from ..nn.allocation import groups_of
from ..nn.auto import LayerConfig
from ..nn.feedforward import DenseConfig
from ..nn.language_moe import LanguageMoEConfig
from ..nn.training import TrainConfig
from ..nn.variants import VariantConfig
from . import embedded
from .cross_score import HeldOut
from .recorded_run import RecordedRun

USE = "use.nc"
KIND = "cross_lingual"
GROUPINGS = ("", "each", "family", "routing", "random")
STARTS = ("", "copied", "distilled")
EXTRAS = ("wrong", "int8", "adapt", "balance")
BASE, PARENT = "none", "dense half"


@dataclass(frozen=True)
class Cell:
    """What a set of runs differs in.

    Attributes:
        signal, lang_width, common, redundant, alpha: of `LanguageMoEConfig`; experts: 0 for the grid's, and with groups
            the common ones and one for each group.
        groups: `each` language, `family` (Indo-European by branch), clusters of `routing` in the base cell, or
            `random` groups as large as the families; empty for none.
        dense: the dense twin; told: whether the language is told; languages: how many, from the first, 0 for all; even:
            all drawn alike.
        tokens: share of a full run; balance: weight of the balance loss, None for the grid's; bias_rate: see
            `TopKRouter`.
        start: `copied`: what is not feed-forward comes from the dense twin of the same seed; `distilled`: experts are
            fitted to its layers besides; empty for a random start.
        then: what is measured at the end besides: `wrong` languages told, `int8` experts, `adapt` to the new language,
            time of the `balance` loss.
        seeds: 0 for the grid's.

    Raises:
        ValueError: a name that does not exist.
    """

    signal: str = "none"
    lang_width: int = 0
    groups: str = ""
    common: int = 0
    redundant: bool = False
    alpha: float | None = None
    experts: int = 0
    dense: bool = False
    told: bool = True
    languages: int = 0
    even: bool = False
    tokens: float = 1.0
    balance: float | None = None
    bias_rate: float = 0.0
    start: str = ""
    then: tuple[str, ...] = ()
    seeds: int = 0

    def __post_init__(self) -> None:
        for name, known in ((self.groups, GROUPINGS), (self.start, STARTS), *((e, EXTRAS) for e in self.then)):
            if name not in known:
                raise ValueError(f"{name!r} is not one of {', '.join(filter(None, known))}")


@dataclass(frozen=True)
class Adaptation:
    """Learning a new language: `methods` with sizes (see `Tuning`), optimiser `steps` of `batch` sequences at the peak
    rate `lr`, and the steps done, `marks`, at which losses are measured.

    Raises:
        ValueError: marks that do not rise from 0 to `steps`.
    """

    methods: tuple[tuple[str, int], ...]
    steps: int
    batch: int
    lr: float
    marks: tuple[int, ...]

    def __post_init__(self) -> None:
        if (self.marks[:1], self.marks[-1:]) != ((0,), (self.steps,)) or list(self.marks) != sorted(set(self.marks)):
            raise ValueError(f"marks {self.marks} do not rise from 0 to {self.steps}, the number of steps")

    def tunings(self) -> list[Tuning]:
        """The methods."""
        return [Tuning(method, size) for method, size in self.methods]


@dataclass(frozen=True)
class CrossRun(RecordedRun):
    """One run.

    Attributes:
        grid, cell: where it belongs; train, stream: what it is; held: the text that is scored; start, then: see `Cell`;
            parent: hash of the run it starts from; new_language, adaptation: for `adapt`; data: content hash of the
            corpora; begins: step of the stream at which it begins: behind what its parent read.
    """

    grid: str
    cell: str
    train: TrainConfig
    stream: LanguageStreamConfig
    held: HeldOut
    start: str
    parent: str
    then: tuple[str, ...]
    new_language: str
    adaptation: Adaptation
    data: str
    begins: int = 0

    @cached_property
    def hash(self) -> str:
        """Content address, of what decides the numbers: twelve hexadecimal digits of its SHA-256."""
        payload = {name: value for name, value in asdict(self).items() if name not in ("grid", "cell")}
        if "adapt" not in self.then:
            del payload["adaptation"], payload["new_language"]
        if not self.begins:
            del payload["begins"]
        return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell}, seed {self.train.seed}"

    def use(self) -> xr.Dataset:
        """Selections of experts by language along training (`dev`) and at the end (`test`)."""
        return xr.load_dataset(self.record / USE)


@dataclass(frozen=True)
class CrossGrid:
    """The experiment; fields as in its file."""

    name: str
    languages: tuple[str, ...]
    new_language: str
    frame: Mapping[str, Any]
    layer: Mapping[str, Any]
    train: Mapping[str, Any]
    probes: int
    seeds: int
    adaptation: Adaptation
    held: HeldOut
    cells: Mapping[str, Cell]
    data: str = field(default_factory=embedded.data_hash)

    def codes(self, cell: Cell) -> tuple[str, ...]:
        """Languages of a cell."""
        return self.languages[: cell.languages or None]

    def groups(self, cell: Cell, seed: int) -> tuple[int, ...] | None:
        """Group of each language; None while the routing they come from is not recorded."""
        codes = self.codes(cell)
        if cell.groups == "each":
            return tuple(range(len(codes)))
        families = groups_of([family(code) for code in codes])
        if cell.groups == "family":
            return families
        if cell.groups == "random":
            return groups_of(np.random.default_rng(seed).permutation(families).tolist())
        distance = self.routing_distance()
        return None if distance is None else groups_of(cut(cluster(distance), max(families) + 1).tolist())

    def routing_distance(self) -> np.ndarray | None:
        """Jensen-Shannon divergence of languages' use of experts in the base cell, mean over layers and seeds; None
        while a run is missing."""
        runs = self.runs(BASE)
        if not all(run.done for run in runs):
            return None
        return _distance(tuple(run.record / USE for run in runs))

    def layer_config(self, cell: Cell, seed: int) -> LayerConfig | None:
        """The feed-forward layer; None where groups are not known yet."""
        sizes = dict(self.layer)
        if cell.dense:
            return DenseConfig(sizes["hidden"], sizes["top_k"] * sizes["width"])
        sizes["experts"] = cell.experts or sizes["experts"]
        options: dict[str, Any] = {"languages": len(self.codes(cell)), "bias_rate": cell.bias_rate, "alpha": cell.alpha}
        if not cell.groups:
            return LanguageMoEConfig(**sizes, **options, signal=cell.signal, lang_width=cell.lang_width)
        groups = self.groups(cell, seed)
        if groups is None:
            return None
        sizes["experts"] = cell.experts or cell.common + max(groups) + 1
        return LanguageMoEConfig(**sizes, **options, groups=groups, common=cell.common, redundant=cell.redundant)

    def run(self, name: str, seed: int) -> CrossRun | None:
        """One run of a cell; None while what it depends on is missing."""
        cell = self.cells[name]
        layer = self.layer_config(cell, seed)
        if layer is None:
            return None
        train = {**self.train, "tokens": round(self.train["tokens"] * cell.tokens), "seed": seed}
        if cell.balance is not None:
            train["balance"] = cell.balance
        marks = np.geomspace(train["tokens"] / 100, train["tokens"], self.probes)[:-1]
        config = TrainConfig(model=VariantConfig(layer, **self.frame), probes=tuple(int(m) for m in marks), **train)
        stream = LanguageStreamConfig(self.codes(cell), alpha=0.0 if cell.even else 0.7, told=cell.told)
        parent = self.run(PARENT, seed) if cell.start else None
        return CrossRun(
            self.name, name, config, stream, self.held, cell.start, parent.hash if parent else "", cell.then,
            self.new_language, self.adaptation, self.data, parent.train.steps if parent else 0,
        )  # fmt: skip

    def runs(self, name: str) -> list[CrossRun]:
        """A cell's runs, one for each seed; none while what they depend on is missing."""
        found = [self.run(name, seed) for seed in range(self.cells[name].seeds or self.seeds)]
        return [run for run in found if run is not None]

    def order(self) -> Iterator[tuple[str, int]]:
        """Every cell and seed: seed after seed, within a seed in the file's order."""
        for seed in range(self.seeds):
            yield from ((name, seed) for name, cell in self.cells.items() if seed < (cell.seeds or self.seeds))

    def missing_runs(self) -> Iterator[CrossRun]:
        """The runs that are missing and can be made, in order."""
        for name, seed in self.order():
            run = self.run(name, seed)
            parent = self.run(PARENT, seed) if self.cells[name].start else None
            if run is not None and not run.done and (parent is None or parent.done):
                yield run

    def size(self) -> int:
        """Number of runs in all."""
        return sum(1 for _ in self.order())

    def complete(self, *names: str) -> bool:
        """Whether every run of the cells is recorded."""
        wanted = [(name, seed) for name, seed in self.order() if name in names]
        return all((run := self.run(*at)) is not None and run.done for at in wanted)


def family(code: str) -> str:
    """The family by which languages are grouped: that of Glottolog's top level, Indo-European by branch with Indo-Aryan
    and Iranian as one."""
    found = language(code)
    if found.family != "Indo-European":
        return found.family
    return "Indo-Iranian" if found.branch in ("Indo-Aryan", "Iranian") else found.branch


def use_distance(use: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence `(lang, lang)` of selection shares `(lang, layer, expert)`, mean over layers."""
    share = use / use.sum(-1, keepdims=True)
    return js_divergence(share[:, None], share[None]).mean(-1)


@cache
def _distance(paths: tuple[Path, ...]) -> np.ndarray:
    found = [xr.load_dataset(path)["dev"].isel(tokens_seen=-1).values for path in paths]
    return np.mean([use_distance(use) for use in found], 0)


def load_cross_grid(path: Path) -> CrossGrid:
    """The grid of a file.

    Raises:
        TypeError: a field that does not exist, or a missing one.
        ValueError: the file is of another kind; see `Cell`.
    """
    payload = yaml.safe_load(path.read_text("utf-8"))
    if payload.pop("kind", None) != KIND:
        raise ValueError(f"{path.name} is no grid of kind {KIND}")
    cells = {name: Cell(**{**cell, "then": tuple(cell.get("then", ()))}) for name, cell in payload.pop("cells").items()}
    plan = payload.pop("adaptation")
    plan["methods"] = tuple((method, size) for method, size in plan["methods"])
    plan["marks"] = tuple(plan["marks"])
    held = HeldOut(**payload.pop("held"))
    return CrossGrid(
        path.stem, tuple(payload.pop("languages")), adaptation=Adaptation(**plan), held=held, cells=cells, **payload
    )
