"""Held-out text of domains: pieces of about one window, parallel pieces, and the balanced segments of a sweep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...corpus.library import DOMAINS, PARALLEL, load
from ...corpus.store import Corpus, CorpusError
from ...corpus.text import even

CHARS = 800
FEWEST_CHARS, FEWEST_DOCUMENTS = 2_000, 4
MODES = ("zero", "reroute", "mean")
Names = str | Sequence[str]


@dataclass(frozen=True)
class Piece:
    """A piece of running text, or a segment.

    Attributes:
        domain, lang: what it is of; document: which document it is of, unique in its domain and the same for its
            translations; text: of a piece about 800 characters, less at the end of a document.
    """

    domain: str
    lang: str
    document: str
    text: str


def load_domains(names: Sequence[str], languages: tuple[str, ...] = ()) -> list[Corpus]:
    """Corpora as domains, by name, folder, table or `hub:NAME`.

    Raises:
        CorpusError: fewer than two, or two of one domain.
    """
    corpora = [load(name, languages) for name in names]
    domains = [corpus.domain for corpus in corpora]
    if len(domains) < 2:
        raise CorpusError(
            f"specialisation is between domains, and {' '.join(domains) or 'nothing'} is not two of them: its entropy "
            "over one domain is not defined; name at least two corpora"
        )
    if len(set(domains)) < len(domains):
        raise CorpusError(f"two corpora have the same domain: {' '.join(domains)}")
    return corpora


def common_languages(corpora: Sequence[Corpus], wanted: Sequence[str] | None = None) -> list[str]:
    """Languages that all corpora have, in the order of the first, the wanted ones only."""
    codes = corpora[0].languages if wanted is None else [code for code in corpora[0].languages if code in wanted]
    return [code for code in codes if all(code in corpus.languages for corpus in corpora)]


def common_language(corpora: Sequence[Corpus]) -> str:
    """The language in which domains are compared: the first of those in common.

    Raises:
        CorpusError: they have none in common.
    """
    if not (codes := common_languages(corpora)):
        raise CorpusError("the corpora have no language in common; domains are compared within a language")
    return codes[0]


def pieces(corpus: Corpus, code: str, split: str, count: int, chars: int = CHARS) -> list[Piece]:
    """At most `count` pieces of a language, evenly over the documents of a split, and evenly within each.

    Where the split is a single document, as in a folder without an index, each piece stands for a document.
    """
    found = {}
    for group, rows in corpus.groups(split).items():
        text = corpus.joiner.join(filter(None, corpus.texts(code, rows)))
        if text:
            found[group] = [text[start : start + chars] for start in _starts(len(text), chars)]
    if not found:
        return []
    groups, alone = even(list(found), count), len(found) == 1
    return [
        Piece(corpus.domain, code, f"{group}/{i}" if alone else group, text)
        for at, group in enumerate(groups)
        for i, text in even(list(enumerate(found[group])), count // len(groups) + (at < count % len(groups)))
    ]


def domain_pieces(corpora: Sequence[Corpus], code: str, split: str, count: int) -> tuple[list[Piece], dict[str, str]]:
    """Pieces of every domain in a language, and the domains left out with the reason: too little text, or too few
    documents for a null that permutes them.

    Raises:
        CorpusError: fewer than two domains are left.
    """
    kept: list[Piece] = []
    left_out = {}
    for corpus in corpora:
        own = pieces(corpus, code, split, count)
        size, documents = sum(len(p.text) for p in own), len({p.document for p in own})
        if size < FEWEST_CHARS or documents < FEWEST_DOCUMENTS:
            left_out[corpus.domain] = f"{size} characters in {documents} documents"
        else:
            kept += own
    if len({piece.domain for piece in kept}) < 2:
        told = "; ".join(f"{name} has {why}" for name, why in left_out.items())
        raise CorpusError(
            f"fewer than two domains have {FEWEST_CHARS} characters in {FEWEST_DOCUMENTS} documents of the {split} "
            f"split in {code!r}: {told}"
        )
    return kept, left_out


def parallel_pieces(
    corpus: Corpus, codes: Sequence[str], split: str, count: int, fits: Callable[[list[str]], bool], chars: int = CHARS
) -> list[Piece]:
    """The beginnings of at most `count` documents, evenly chosen, in each of the languages: the same whole segments, as
    many as make `chars` characters in the first language and fit in all of them. A document whose first segment does
    not fit is left out.

    Args:
        fits: whether texts, one in each language, are all read to their end.
    """
    columns = [corpus.columns[code] for code in codes]
    common = {
        group: [i for i in rows if all(column[i] for column in columns)] for group, rows in corpus.groups(split).items()
    }
    common = {group: rows for group, rows in common.items() if rows}
    found = []
    for group, rows in even(list(common.items()), count):
        sizes = np.cumsum([len(columns[0][i]) for i in rows])
        kept = rows[: max(1, int((sizes <= chars).sum()))]
        while kept and not fits(texts := [corpus.joiner.join(corpus.texts(c, kept)) for c in codes]):
            kept = kept[:-1]
        found += [Piece(corpus.domain, *own) for own in zip(codes, [group] * len(codes), texts, strict=True) if kept]
    return found


def _starts(size: int, chars: int) -> range:
    """Where pieces begin; a rest of less than half a piece is left out, unless it is all there is."""
    return range(0, max(size - chars // 2, 1), chars)


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
    def parse(
        cls, data: Names | None = None, languages: Names | None = None, modes: Names = MODES, **more: Any
    ) -> "SweepConfig":
        """Names in a sequence, or separated by commas as on a command line; None for what is swept by default."""
        names, codes, ways = (tuple(own.split(",") if isinstance(own, str) else own or ())
                              for own in (data, languages, modes))  # fmt: skip
        return cls(names or cls.data, codes or None, modes=ways, **more)


SWEEP = SweepConfig()


def passages(config: SweepConfig) -> list[Piece]:
    """Segments in an order in which every beginning is balanced over domains and languages.

    Raises:
        CorpusError: nothing of the split in these languages.
    """
    cells = []
    for corpus in (load(name, config.languages or ()) for name in config.data):
        codes = [code for code in corpus.languages if config.languages is None or code in config.languages]
        cells += filter(None, (_cell(corpus, code, config) for code in codes))
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


def _cell(corpus: Corpus, code: str, config: SweepConfig) -> list[Piece]:
    """Segments of a language, evenly spaced over the split, the same ones in every language that has them. Where the
    split is a single document, as in a folder without an index, each segment stands for a document."""
    rows = corpus.split(config.split)
    alone = len(corpus.groups(config.split)) == 1
    column = corpus.columns[code]
    chosen = [i for i in even(rows, config.max_segments) if column[i].strip()]
    names = {i: corpus.rows[i].id if alone else corpus.rows[i].group for i in chosen}
    return [Piece(corpus.domain, code, f"{corpus.name}/{names[i]}", column[i]) for i in chosen]
