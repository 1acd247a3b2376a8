"""The texts that experts are ablated on: segments of every domain and language, balanced and in a fixed order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..corpus.library import DOMAINS, PARALLEL, load
from ..corpus.store import Corpus, CorpusError

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
    rng = np.random.default_rng(config.seed)
    mixed = [[cell[i] for i in rng.permutation(len(cell))] for cell in cells]
    # The i-th of n segments of a cell stands at (i + 1/2) / n: cells of unequal size end together.
    keyed = [((i + 0.5) / len(cell), number, i) for number, cell in enumerate(mixed) for i in range(len(cell))]
    return [mixed[number][i] for _, number, i in sorted(keyed)]


def _cell(corpus: Corpus, code: str, config: SweepConfig) -> list[Passage]:
    """Segments of a language, evenly spaced over the split, the same ones in every language that has them."""
    rows = corpus.split(config.split)
    spaced = np.linspace(0, len(rows) - 1, min(len(rows), config.max_segments)).round().astype(int)
    column = corpus.columns[code]
    chosen = [rows[i] for i in spaced if column[rows[i]].strip()]
    return [Passage(corpus.domain, code, f"{corpus.name}/{corpus.rows[i].group}", column[i]) for i in chosen]


def cells(found: Sequence[Passage]) -> np.ndarray:
    """`(sequence,)` label of domain and language."""
    return np.array([f"{p.domain} {p.lang}" for p in found])
