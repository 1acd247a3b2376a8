"""Held-out text of domains, in pieces of about one window, and parallel pieces of several languages."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ...corpus.library import load
from ...corpus.store import Corpus, CorpusError

CHARS = 800
FEWEST_CHARS, FEWEST_DOCUMENTS = 2_000, 4


@dataclass(frozen=True)
class Piece:
    """A piece of running text.

    Attributes:
        domain, lang: what it is of; document: which document it is of, unique in its domain and the same for its
            translations; text: about 800 characters, less at the end of a document.
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


def common_language(corpora: Iterable[Corpus]) -> str:
    """The language in which domains are compared: the first that all have, in the order of the first corpus.

    Raises:
        CorpusError: they have none in common.
    """
    first, *others = corpora
    for code in first.languages:
        if all(code in other.languages for other in others):
            return code
    raise CorpusError("the corpora have no language in common; domains are compared within a language")


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
    groups = [list(found)[i] for i in even(len(found), count)]
    alone = len(found) == 1
    return [
        Piece(corpus.domain, code, f"{group}/{i}" if alone else group, found[group][i])
        for group, share in zip(groups, _shares(len(groups), count), strict=True)
        for i in even(len(found[group]), share)
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
    for at in even(len(common), count):
        group, rows = list(common.items())[at]
        sizes = np.cumsum([len(columns[0][i]) for i in rows])
        kept = rows[: max(1, int((sizes <= chars).sum()))]
        while kept and not fits(texts := [corpus.joiner.join(corpus.texts(c, kept)) for c in codes]):
            kept = kept[:-1]
        found += [Piece(corpus.domain, *own) for own in zip(codes, [group] * len(codes), texts, strict=True) if kept]
    return found


def even(size: int, count: int) -> list[int]:
    """At most `count` of `0..size-1`, evenly spaced."""
    if count >= size:
        return list(range(size))
    return np.linspace(0, size - 1, count).round().astype(int).tolist()


def _shares(groups: int, count: int) -> list[int]:
    """How many pieces each of the groups gives; sums to `count`."""
    return [count // groups + (i < count % groups) for i in range(groups)]


def _starts(size: int, chars: int) -> range:
    """Where pieces begin; a rest of less than half a piece is left out, unless it is all there is."""
    return range(0, max(size - chars // 2, 1), chars)
