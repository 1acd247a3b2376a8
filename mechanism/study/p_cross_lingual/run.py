"""The cells of the grid of chapter P as data, and one run of a cell."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xarray as xr

from ...corpus.language_stream import UNTOLD, LanguageStreamConfig
from ...nn.adapt import Tuning
from ..grid.run import RecordedRun
from .held_out import HeldOut

USE = "use.nc"
GROUPINGS = ("", "each", "family", "routing", "random")
STARTS = ("", "copied", "distilled")
EXTRAS = ("wrong", "int8", "adapt", "adapt tuned", "balance")
KINDS = ("experts", "dense")


@dataclass(frozen=True)
class Cell:
    """What a set of runs differs in.

    Attributes:
        signal, lang_width, common, redundant, alpha: of `LanguageMoEConfig`; experts: 0 for the grid's, and with groups
            the common ones and one for each group.
        groups: `each` language, `family` (Indo-European by branch), clusters of `routing` in the base cell, or
            `random` groups as large as the families; empty for none.
        dense: a dense model, the twin or, with `width`, one of that inner width; told: whether the language is told;
            languages: how many, from the first, 0 for all; only: the one that is read, empty for those; even: all drawn
            alike; glimpse: share of the sequences that the grid's new language has.
        tokens: share of a full run; batch: sequences a step, 0 for the grid's; dtype: empty for the grid's.
        balance: weight of the balance loss, None for the grid's; bias_rate: see `TopKRouter`.
        start: `copied`: what is not feed-forward comes from the dense twin of the same seed; `distilled`: experts are
            fitted to its layers besides; empty for a random start.
        then: what is measured at the end besides: `wrong` languages told, `int8` experts, `adapt` to the new language
            at the grid's rate or, `adapt tuned`, at each method's own, time of the `balance` loss.
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
    width: int = 0
    told: bool = True
    languages: int = 0
    only: str = ""
    even: bool = False
    glimpse: float = 0.0
    tokens: float = 1.0
    batch: int = 0
    dtype: str = ""
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
class Thesis:
    """The cells that compare one model of many languages with many models of one; as in the grid's file. Every model
    takes as many steps, each with as many sequences a language.

    Attributes:
        languages: how many are learnt together, the first of the grid's; the first number is how many are in common.
        experts: numbers of experts; widths: of one dense model; alone: widths of a dense model of one language, of each
            of those in common.
        tokens: of a language; sequences: of a language in a step; dtype: of training.
    """

    languages: tuple[int, ...]
    experts: tuple[int, ...]
    widths: tuple[int, ...]
    alone: tuple[int, ...]
    tokens: int
    sequences: int
    dtype: str

    def cells(self, codes: tuple[str, ...], full: int) -> Iterator[tuple[str, Cell]]:
        """By name; `full`: tokens of a full run of the grid."""
        for count in self.languages:
            given: dict[str, Any] = {"languages": count, "even": True, "told": False, "dtype": self.dtype}
            given |= {"batch": count * self.sequences, "tokens": count * self.tokens / full}
            for size in self.experts:
                yield together(count, "experts", size), Cell(signal="added", experts=size, **given)
            for size in self.widths:
                yield together(count, "dense", size), Cell(dense=True, width=size, **given)
        for code in codes[: self.languages[0]]:
            for size in self.alone:
                one: dict[str, Any] = {"only": code, "batch": self.sequences, "dtype": self.dtype}
                yield alone(code, size), Cell(dense=True, width=size, tokens=self.tokens / full, **one)

    def goal(self, kind: str) -> int:
        """The size whose loss with few languages has to be reached with many: the middle one."""
        sizes = self.sizes(kind)
        return sizes[len(sizes) // 2]

    def sizes(self, kind: str) -> tuple[int, ...]:
        """Numbers of experts, or widths."""
        return self.experts if kind == "experts" else self.widths


def together(languages: int, kind: str, size: int) -> str:
    """The cell of a model of several languages."""
    return f"{languages} together, {f'{size} experts' if kind == 'experts' else f'dense {size}'}"


def alone(code: str, width: int) -> str:
    """The cell of a model of one language."""
    return f"{code} alone, dense {width}"


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
class LanguageRun(RecordedRun):
    """One run of a cell; `start`, `then`: see `Cell`.

    Attributes:
        held: the text that is scored; parent: hash of the run it starts from; new_language, adaptation: for `adapt`;
            data: content hash of the corpora; begins: step of the stream behind what its parent read.
    """

    cell: str
    stream: LanguageStreamConfig
    held: HeldOut
    start: str
    parent: str
    then: tuple[str, ...]
    new_language: str
    adaptation: Adaptation
    data: str
    begins: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """See `RecordedRun`; what says nothing of a run is left out."""
        silent = () if {"adapt", "adapt tuned"} & set(self.then) else ("adaptation", "new_language")
        silent = silent if self.begins else (*silent, "begins")
        found = {name: value for name, value in super().identity.items() if name not in silent}
        if not self.stream.glimpsed:
            found["stream"] = {k: v for k, v in found["stream"].items() if k not in ("glimpsed", "glimpse")}
        return found

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.cell}, seed {self.train.seed}"

    @property
    def told_ids(self) -> list[int]:
        """The language id of each of its languages, as it is told."""
        codes = self.stream.languages
        return list(range(len(codes))) if self.stream.told else [UNTOLD] * len(codes)

    def use(self) -> xr.Dataset:
        """Selections of experts by language along training (`dev`) and at the end (`test`)."""
        return xr.load_dataset(self.record / USE)
