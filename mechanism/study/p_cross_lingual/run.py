"""A cell of the grid of chapter P as data, and one run of it."""

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
EXTRAS = ("wrong", "int8", "adapt", "balance")


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
        silent = () if "adapt" in self.then else ("adaptation", "new_language")
        silent = silent if self.begins else (*silent, "begins")
        return {name: value for name, value in super().identity.items() if name not in silent}

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
