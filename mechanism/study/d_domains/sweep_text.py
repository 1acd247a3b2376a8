"""The texts that experts are ablated on: segments of every domain and language, balanced and in a fixed order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...corpus.library import DOMAINS, PARALLEL, load
from ...corpus.store import Corpus, CorpusError

MODES = ("zero", "reroute", "mean")


@dataclass(frozen=True)
class SweepConfig:
    """What is swept.

    Attributes:
        data: corpora by name, folder, table or `hub:NAME`; each is a domain.
        languages: codes; all that a corpus has without any.
        max_segments: cap per domain and language; max_tokens: of a segment, the rest is cut off.
        split: of the corpora; modes: of `Ablate`; seed: of the order of segments.
    """

    data: tuple[str, ...] = (*(name for name in PARALLEL if name != "udhr"), *DOMAINS)
    languages: tuple[str, ...] | None = None
    max_segments: int = 24
    max_tokens: int = 128
    split: str = "test"
    modes: tuple[str, ...] = MODES
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.modes or set(self.modes) - set(MODES) or len(set(self.modes)) < len(self.modes):
            raise ValueError(f"modes of ablation are some of {' '.join(MODES)}, each once; got {self.modes}")
        if self.max_segments < 1 or self.max_tokens < 2:
            raise ValueError("a sweep needs at least one segment, of at least two tokens")

    @classmethod
    def parse(cls, data: str | None, languages: str | None, modes: str, **more: Any) -> "SweepConfig":
        """From names separated by commas, as on a command line."""
        names = tuple(data.split(",")) if data else cls.data
        codes = tuple(languages.split(",")) if languages else None
        return cls(names, codes, modes=tuple(modes.split(",")), **more)


SWEEP = SweepConfig()


@dataclass(frozen=True)
class Passage:
    """A segment of text; its document is the same for its translations."""

    domain: str
    lang: str
    document: str
    text: str


def passages(config: SweepConfig) -> list[Passage]:
    """Segments in an order in which every beginning is balanced over domains and languages.

    Raises:
        CorpusError: nothing of the split in these languages.
    """
    cells = []
    for name in config.data:
        corpus = load(name, config.languages or ())
        for code in corpus.languages:
            if config.languages is None or code in config.languages:
                cells.append(_cell(corpus, code, config))
    cells = [cell for cell in cells if cell]
    if not cells:
        raise CorpusError(f"{' '.join(config.data)}: no text of the {config.split} split in {config.languages}")
    every = [passage for cell in cells for passage in cell]
    names = np.repeat(np.arange(len(cells)), list(map(len, cells)))
    return [every[i] for i in balanced(names, np.random.default_rng(config.seed))]


def balanced(cell: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of items every beginning of which has all cells in proportion: the i-th of a cell's n items
    stands at (i + 1/2) / n, cells of equal rank in their own order."""
    place = np.zeros(len(cell))
    for one in np.unique(cell):
        own = np.flatnonzero(cell == one)
        place[rng.permutation(own)] = (np.arange(len(own)) + 0.5) / len(own)
    return np.lexsort((np.arange(len(cell)), place))


def _cell(corpus: Corpus, code: str, config: SweepConfig) -> list[Passage]:
    """Segments of a language, evenly spaced over the split, the same ones in every language that has them. Where the
    split is a single document, as in a folder without an index, each segment stands for a document."""
    rows = corpus.split(config.split)
    alone = len(corpus.groups(config.split)) == 1
    spaced = np.linspace(0, len(rows) - 1, min(len(rows), config.max_segments)).round().astype(int)
    column = corpus.columns[code]
    chosen = [rows[i] for i in spaced if column[rows[i]].strip()]
    names = {i: corpus.rows[i].id if alone else corpus.rows[i].group for i in chosen}
    return [Passage(corpus.domain, code, f"{corpus.name}/{names[i]}", column[i]) for i in chosen]


def cells(found: Sequence[Passage]) -> np.ndarray:
    """`(sequence,)` label of domain and language."""
    return np.array([f"{p.domain} {p.lang}" for p in found])
