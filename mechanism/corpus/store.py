"""Corpora: segments aligned over languages, and the files that hold the committed ones."""

import csv
import hashlib
import io
import lzma
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .text import NEWLINE_MARK

DATA = Path(__file__).resolve().parents[2] / "data"
"""The repository's data; an installed package comes without them."""
SPLITS = ("train", "dev", "test")
INDEX_FILE = "index.tsv"


class CorpusError(ValueError):
    """A corpus that cannot be used: missing, empty, misaligned or corrupted. The message says what and how to
    mend it."""


def absent(what: str, remedy: str = "restore it from version control") -> str:
    """The sentence for data of the repository that are not there: what to do in a checkout, and without one."""
    if DATA.is_dir():
        return f"no {what}: {remedy}"
    return f"no {what}: it is in the repository and not in the installed package; clone the repository and run it there"


@dataclass(frozen=True)
class Segment:
    """Row of a corpus: `id` within its `group` (chapter, file, speech), and the `split` the whole group is in."""

    id: str
    group: str
    split: str


@dataclass
class Corpus:
    """Segments aligned over languages.

    Attributes:
        name: short name, e.g. `religion`.
        domain: domain label; equals the name for the committed corpora.
        rows: one `Segment` per row.
        columns: language code -> list of texts, one per row; an empty text means the row is missing there.
        joiner: what stands between two consecutive segments of a group when they are read as running text.
        told: what was read of a user's files as which language, and what was left out.
    """

    name: str
    domain: str
    rows: list[Segment]
    columns: Mapping[str, list[str]] = field(repr=False)
    joiner: str = "\n"
    told: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise CorpusError(f"corpus {self.name!r} is empty: it needs at least one language and one segment")
        for code, texts in self.columns.items():
            if len(texts) != len(self.rows):
                raise CorpusError(
                    f"corpus {self.name!r} is misaligned: {code} has {len(texts)} segments, "
                    f"the index has {len(self.rows)}; every language needs one line per segment (empty if missing)"
                )

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @cached_property
    def _split_rows(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {split: [] for split in SPLITS}
        for i, segment in enumerate(self.rows):
            rows[segment.split].append(i)
        return rows

    def split(self, split: str) -> list[int]:
        """Row numbers of a split, in order."""
        return self._split_rows[split]

    def texts(self, language: str, rows: Iterable[int]) -> list[str]:
        """Texts of the rows in a language.

        Raises:
            CorpusError: the corpus does not hold the language.
        """
        if language not in self.columns:
            raise CorpusError(f"corpus {self.name!r} has no language {language!r}; it has {' '.join(self.languages)}")
        column = self.columns[language]
        return [column[i] for i in rows]

    def parallel(self, split: str, languages: Iterable[str]) -> list[int]:
        """Rows of a split that every named language has."""
        columns = [self.columns[code] for code in languages]
        return [i for i in self.split(split) if all(column[i] for column in columns)]

    def groups(self, split: str) -> dict[str, list[int]]:
        """Rows of a split by group, in order: the documents."""
        found: dict[str, list[int]] = {}
        for i in self.split(split):
            found.setdefault(self.rows[i].group, []).append(i)
        return found


def sha256(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()


def encode_lines(lines: Iterable[str]) -> bytes:
    """Segments as UTF-8 lines; newlines inside a segment become the newline mark."""
    lines = list(lines)
    for line in lines:
        if NEWLINE_MARK in line:
            raise CorpusError(f"segment holds the reserved character {NEWLINE_MARK}: {line[:60]!r}")
    return "".join(line.replace("\n", NEWLINE_MARK) + "\n" for line in lines).encode()


def decode_lines(payload: bytes) -> list[str]:
    """Inverse of `encode_lines`."""
    text = payload.decode().removesuffix("\n")
    return [line.replace(NEWLINE_MARK, "\n") for line in text.split("\n")]


def encode_index(rows: Iterable[Segment]) -> bytes:
    """The index file: tab-separated id, group, split, with a header."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(("id", "group", "split"))
    writer.writerows((row.id, row.group, row.split) for row in rows)
    return out.getvalue().encode()


def decode_index(payload: bytes) -> list[Segment]:
    """Inverse of `encode_index`."""
    reader = csv.DictReader(io.StringIO(payload.decode()), delimiter="\t")
    return [Segment(row["id"], row["group"], row["split"]) for row in reader]


def compress(payload: bytes) -> bytes:
    """xz, strongest preset: the same bytes for the same liblzma."""
    return lzma.compress(payload, preset=9 | lzma.PRESET_EXTREME)


def read_payload(path: Path) -> bytes:
    """A file's content, decompressed when its name ends in `.xz`.

    Raises:
        CorpusError: the file is missing or its compression is damaged.
    """
    try:
        payload = path.read_bytes()
        return lzma.decompress(payload) if path.suffix == ".xz" else payload
    except FileNotFoundError:
        raise CorpusError(f"no corpus file at {path}") from None
    except lzma.LZMAError as error:
        raise CorpusError(f"corpus file {path} is corrupted ({error}); restore it from version control") from None
