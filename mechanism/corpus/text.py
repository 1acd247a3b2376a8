"""Text hygiene: Unicode normalisation, the newline mark, near-duplicate detection across splits; and an even choice."""

import hashlib
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
NEWLINE_MARK = "␤"  # stands for a newline inside a segment, so that a corpus file holds one segment a line
_BIDI = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\ufeff\u00ad"))
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"<[^>]+>")
_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u1780-\u17ff]")


def even(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spaced from the first to the last."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)]


def nfc(text: str) -> str:
    """NFC-normalised text without bidirectional marks, byte-order marks and soft hyphens."""
    return unicodedata.normalize("NFC", text).translate(_BIDI)


def squeeze(text: str) -> str:
    """One line: every run of white space is one space."""
    return _SPACE.sub(" ", text).strip()


def from_html(fragment: str) -> str:
    """Plain text of an HTML fragment on one line."""
    return nfc(squeeze(html.unescape(_TAG.sub(" ", fragment))))


def hash_fraction(key: str) -> float:
    """A stable number in [0, 1) drawn from a key: the same on every machine and Python version."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def shingles(text: str) -> frozenset[int]:
    """Hashes of all runs of four tokens (words; single characters for scripts without spaces), case and punctuation
    ignored. A shorter text is one shingle."""
    tokens = _WORD.findall(_UNSPACED.sub(r" \g<0> ", text.casefold()))
    if len(tokens) <= 4:
        return frozenset({hash_text(" ".join(tokens))})
    return frozenset(hash_text(" ".join(tokens[i : i + 4])) for i in range(len(tokens) - 3))


def hash_text(text: str) -> int:
    """A 64-bit content hash (BLAKE2b), stable over processes."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def near_duplicates(texts: Sequence[str], against: Iterable[str]) -> set[int]:
    """Indices of `texts` of whose shingles at least half occur in one single text of `against`.

    Containment, not Jaccard: a test segment that a longer training segment contains is a leak too.
    """
    own = [shingles(text) for text in texts]
    holders: dict[int, list[int]] = {}
    for i, hashes in enumerate(own):
        for value in hashes:
            holders.setdefault(value, []).append(i)
    found: set[int] = set()
    for text in against:
        shared = Counter(i for value in shingles(text) for i in holders.get(value, ()))
        found |= {i for i, count in shared.items() if count >= 0.5 * len(own[i])}
    return found


def leaking_rows(columns: Mapping[str, Sequence[str]], splits: Sequence[str]) -> set[int]:
    """Rows outside `train` that near-duplicate a training row, and rows of `test` that near-duplicate a `dev`
    row, in any language. Empty cells are ignored."""
    leaks: set[int] = set()
    for later, earlier in (("dev", {"train"}), ("test", {"train", "dev"})):
        for column in columns.values():
            rows = [i for i, s in enumerate(splits) if s == later and column[i]]
            seen = (column[i] for i, s in enumerate(splits) if s in earlier and column[i])
            found = near_duplicates([column[i] for i in rows], seen)
            leaks |= {rows[i] for i in found}
    return leaks
