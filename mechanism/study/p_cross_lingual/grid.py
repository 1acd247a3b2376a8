"""The grid of chapter P as data: its cells' runs, and in which order they are made."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ...corpus.language_stream import LanguageStreamConfig
from ...corpus.languages import language
from ...measure.clustering import cluster, cut
from ...measure.divergence import js_divergence
from ...nn.allocation import groups_of
from ...nn.auto import LayerConfig
from ...nn.feedforward import DenseConfig
from ...nn.language_moe import LanguageMoEConfig
from ...nn.train_config import TrainConfig
from ...nn.variants import VariantConfig
from ..base import runs as training_runs
from ..grid.run import Planned, RunGrid, Workshop
from .held_out import HeldOut
from .run import USE, Adaptation, Cell, LanguageRun, Thesis

BASE, PARENT, GLIMPSED = "none", "dense half", "glimpsed"


@dataclass(frozen=True)
class LanguageGrid(RunGrid[LanguageRun]):
    """The experiment; fields as in its file, where `thesis` stands for cells of its own, and the `shop` that makes its
    runs."""

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
    figure = ("test", 4)
    thesis: Thesis | None = None
    shop: "Callable[[LanguageGrid], Workshop[LanguageRun]] | None" = None
    data: str = field(default_factory=training_runs.data_hash)

    def codes(self, cell: Cell) -> tuple[str, ...]:
        """Languages of a cell."""
        return (cell.only,) if cell.only else self.languages[: cell.languages or None]

    def budget(self, cell: Cell) -> dict[str, Any]:
        """Tokens of a run of a cell, sequences of a step, and what it is trained in if that is not the grid's."""
        tokens = round(self.train["tokens"] * cell.tokens)
        own = {"tokens": tokens, "batch": cell.batch or self.train["batch"]}
        return own | ({"dtype": cell.dtype} if cell.dtype else {})

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
        runs = self.runs(BASE)
        if not all(run.done for run in runs):
            return None
        distance = _distance(tuple(run.record / USE for run in runs))
        return groups_of(cut(cluster(distance), max(families) + 1).tolist())

    def layer_config(self, cell: Cell, seed: int) -> LayerConfig | None:
        """The feed-forward layer; None where groups are not known yet."""
        sizes = dict(self.layer)
        if cell.dense:
            return DenseConfig(sizes["hidden"], cell.width or sizes["top_k"] * sizes["width"])
        sizes["experts"] = cell.experts or sizes["experts"]
        options: dict[str, Any] = {"languages": len(self.codes(cell)), "bias_rate": cell.bias_rate, "alpha": cell.alpha}
        if not cell.groups:
            return LanguageMoEConfig(**sizes, **options, signal=cell.signal, lang_width=cell.lang_width)
        groups = self.groups(cell, seed)
        if groups is None:
            return None
        sizes["experts"] = cell.experts or cell.common + max(groups) + 1
        return LanguageMoEConfig(**sizes, **options, groups=groups, common=cell.common, redundant=cell.redundant)

    def run(self, name: str, seed: int) -> LanguageRun | None:
        """One run of a cell; None while what it depends on is missing."""
        cell = self.cells[name]
        layer = self.layer_config(cell, seed)
        if layer is None:
            return None
        train = {**self.train, **self.budget(cell), "seed": seed}
        if cell.balance is not None:
            train["balance"] = cell.balance
        marks = np.geomspace(train["tokens"] / 100, train["tokens"], self.probes)[:-1]
        config = TrainConfig(model=VariantConfig(layer, **self.frame), probes=tuple(int(m) for m in marks), **train)
        also: dict[str, Any] = {"glimpsed": self.new_language, "glimpse": cell.glimpse} if cell.glimpse else {}
        stream = LanguageStreamConfig(self.codes(cell), 0.0 if cell.even else 0.7, cell.told, **also)
        parent = self.run(PARENT, seed) if cell.start else None
        return LanguageRun(
            self.name, config, name, stream, self.held, cell.start, parent.hash if parent else "", cell.then,
            self.new_language, self.adaptation, self.data, parent.train.steps if parent else 0,
        )  # fmt: skip

    def runs(self, name: str) -> list[LanguageRun]:
        """A cell's runs, one for each seed; none while what they depend on is missing."""
        found = [self.run(name, seed) for seed in range(self.cells[name].seeds or self.seeds)]
        return [run for run in found if run is not None]

    def order(self) -> Iterator[tuple[str, int]]:
        """Every cell and seed: seed after seed, within a seed in the file's order."""
        for seed in range(self.seeds):
            yield from ((name, seed) for name, cell in self.cells.items() if seed < (cell.seeds or self.seeds))

    def planned(self) -> Iterator[Planned]:
        """Every run in order."""
        for name, seed in self.order():
            own = self.budget(self.cells[name])
            yield Planned(name, -(-own["tokens"] // (own["batch"] * self.train["length"])), self.run(name, seed))

    def ready(self, run: LanguageRun) -> bool:
        """Whether the run that it starts from is there."""
        return not run.start or self.parent(run).done

    def keeps(self, run: LanguageRun) -> bool:
        """Weights that other runs begin from."""
        return run.cell == PARENT

    def parent(self, run: LanguageRun) -> LanguageRun:
        """The dense twin of the same seed."""
        found = self.run(PARENT, run.train.seed)
        assert found is not None
        return found

    def workshop(self) -> Workshop[LanguageRun]:
        """See `RunGrid`."""
        assert self.shop is not None
        return self.shop(self)

    def figure_of(self, result: Mapping[str, Any]) -> float:
        """Bits per byte of test text, mean over languages."""
        return result["test"]

    def complete(self, *names: str) -> bool:
        """Whether every run of the cells is recorded."""
        wanted = [(name, seed) for name, seed in self.order() if name in names]
        return all((run := self.run(*at)) is not None and run.usable for at in wanted)


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
    """Distance of languages by their use of experts at the end of several runs, mean over them."""
    found = [xr.load_dataset(path)["dev"].isel(tokens_seen=-1).values for path in paths]
    return np.mean([use_distance(use) for use in found], 0)
