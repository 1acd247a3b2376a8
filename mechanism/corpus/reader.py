"""Parallel text as people have it, in folders and tables, and a list of what was understood of it.

Line ends, byte-order marks and the encodings that a mark declares are normalised; what holds nothing visible is a gap.
Only what names a language is read as one; everything else is named and left out.
"""

import codecs
import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import langcodes

from .hub import flores_code
from .languages import LANGUAGES
from .store import INDEX_FILE, SPLITS, Corpus, CorpusError, Segment, read_payload
from .text import NEWLINE_MARK, nfc

SPLIT_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "develop", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "devtest", "testing", "eval"), "test"),
}
"""Names of splits as people write them, and the split that they mean."""
_SUFFIXES = {"txt", "text", "xz", "raw", "tok", "utf8"}
_PACKED = {"gz", "bz2", "zip", "zst", "7z", "tar", "tgz"}
# Headers of well-known sets that are language tags too, or could be taken for some.
_NOT_LANGUAGES = {"url", "num", "row", "doc", "ref", "tag", "set", "src", "tgt", "pos", "key", "txt", "und", "zxx"}
_DELIMITERS = (",", ";", "\t", "|")
_INVISIBLE = {"Cf", "Cc", "Zs", "Zl", "Zp"}
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@cache
def language_of(name: str) -> str | None:
    """The code of a language by the name that a file or a column has: BCP 47 tags, FLORES codes (`eng_Latn`) and ISO
    639-3 codes; a script that the language is usually written in is dropped. None for what names no language.

    >>> [language_of(name) for name in ("en", "eng_Latn", "arb_Arab", "zho_Hant", "pt_BR", "README")]
    ['en', 'en', 'ar', 'zh-Hant', 'pt-BR', None]
    """
    tag = name.strip().replace("_", "-")
    if not tag or name.strip().lower() in _NOT_LANGUAGES or not langcodes.tag_is_valid(tag):
        return None
    flores = {flores_code(code).replace("_", "-").lower(): code for code in LANGUAGES}
    if tag.lower() in flores:
        return flores[tag.lower()]
    found = langcodes.get(langcodes.standardize_tag(tag, macro=True))
    usual = langcodes.get(found.language or "und").maximize().script
    if found.script == usual:
        found = langcodes.Language.make(found.language, territory=found.territory)
    code = found.to_tag()
    return "tl" if code == "fil" else code


def load_folder(folder: Path) -> Corpus:
    """A folder of one text file per language, one segment a line, aligned: `en.txt`, `sw.txt.xz`, `Corpus.en.txt`,
    `eng_Latn.devtest`, `dev.en.txt`; see `language_of`. Files of several splits are one file per language and split.

    With an `index.tsv` (columns id, group, split) rows keep its splits; without one a file's split is that of its name,
    `test` without any, and all rows are one group. Blank lines are gaps; texts are NFC-normalised.

    Raises:
        CorpusError: no folder, no language file, two files for one language and split, one that is empty or that is
            no UTF-8 or marked UTF-16, or files of unequal length.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CorpusError(f"no corpus folder at {folder}: it should hold one <language>.txt per language")
    files, told = _files(folder)
    if not files:
        left = f" ({'; '.join(told)})" if told else ""
        raise CorpusError(f"corpus folder {folder} is empty: it should hold one <language>.txt per language{left}")
    index, rows, columns = _index(folder), list[Segment](), dict[str, list[str]]()
    codes = list(dict.fromkeys(code for code, _ in files))
    for split in [split for split in SPLITS if any(own == split for _, own in files)]:
        lines = {code: _lines(path) for (code, own), path in files.items() if own == split}
        size = _size(folder, lines, len(index) if index else None)
        told += [_told(code, files[code, split], own[:size], split) for code, own in lines.items()]
        rows += [Segment(str(i), folder.name, split) for i in range(size)]
        for code in codes:
            own = lines.get(code, [])[:size]
            columns.setdefault(code, []).extend([*own, *[""] * (size - len(own))])
    return Corpus(folder.name, folder.name, index or rows, columns, told=tuple(told))


def _files(folder: Path) -> tuple[dict[tuple[str, str], Path], list[str]]:
    """The file of each language and split, and what is left out."""
    found: dict[tuple[str, str], Path] = {}
    told = []
    for path in sorted(folder.iterdir()):
        parts = [part for part in path.name.split(".") if part.lower() not in _SUFFIXES]
        if not path.is_file() or path.name.startswith(".") or path.name.removesuffix(".xz") == INDEX_FILE:
            continue
        splits = [SPLIT_NAMES[part.lower()] for part in parts if part.lower() in SPLIT_NAMES]
        codes = [code for part in parts if part.lower() not in SPLIT_NAMES and (code := language_of(part))]
        if not codes or _PACKED & {part.lower() for part in parts}:
            why = "it is packed in a way that is not read" if codes else "its name has no language"
            told.append(f"{path.name} is left out: {why}")
            continue
        key = codes[-1], splits[0] if splits else "test"
        if key in found:
            raise CorpusError(
                f"corpus folder {folder} has two files for {key[0]}, {found[key].name} and {path.name}: keep one"
            )
        found[key] = path
    return found, told


def _index(folder: Path) -> list[Segment]:
    """Rows of the index file, none without one."""
    for path in (folder / f"{INDEX_FILE}.xz", folder / INDEX_FILE):
        if path.exists():
            table = csv.DictReader(io.StringIO(_text(path)), delimiter="\t")
            return [_segment(path, i, row, folder.name) for i, row in enumerate(table)]
    return []


def _size(folder: Path, lines: Mapping[str, Sequence[str]], wanted: int | None) -> int:
    """Rows of a split: those up to the last text in any language, or those of the index."""
    ends = {code: max((i + 1 for i, text in enumerate(own) if text), default=0) for code, own in lines.items()}
    size = wanted or max(ends.values())
    if any(ends[code] > size or len(own) < size for code, own in lines.items()):
        told = ", ".join(f"{code} {len(own)}" for code, own in lines.items())
        told += f", rows of the index {wanted}" if wanted else ""
        raise CorpusError(f"corpus folder {folder} is misaligned: lines per file are {told}; they must be equal")
    return size


def _lines(path: Path) -> list[str]:
    lines = _text(path).removesuffix("\n").split("\n")
    found = [_clean(line.replace(NEWLINE_MARK, "\n")) for line in lines]
    if not any(found):
        raise CorpusError(f"corpus file {path} is empty")
    return found


def load_table(path: Path) -> Corpus:
    """A table (`.csv` or `.tsv`, `.xz` as well) with a column per language, see `language_of`, and a row per segment;
    optional columns `id`, `group`, `split`. Other columns are named and left out. The fields of a `.csv` are separated
    by comma, semicolon, tab or bar, and quoted or not; those of a `.tsv` by tabs.

    Raises:
        CorpusError: no file, no rows, no language column, two for one language, a row with more or fewer fields than
            the header, an id that stands twice, an unknown split, or an encoding that is not known.
    """
    path = Path(path)
    name = path.name.removesuffix(".xz")
    text, (stem, _, suffix) = _text(path), name.rpartition(".")
    table = list(_records(text, _DELIMITERS if suffix.lower() == "csv" else ("\t",)))
    if not table:
        raise CorpusError(f"table {path} is empty: it needs a header with a column per language, and rows")
    header = [field.strip() for field in table[0]]
    codes = {i: code for i, field in enumerate(header) if field not in _ABOUT and (code := language_of(field))}
    if not codes:
        named = ", ".join(header[:8])
        raise CorpusError(f"no column of {path} is a language: its first line reads {named}; name columns by codes")
    if double := [code for code, count in Counter(codes.values()).items() if count > 1]:
        same = ", ".join(header[i] for i, code in codes.items() if code == double[0])
        raise CorpusError(f"table {path} has two columns for {double[0]}: {same}; keep one")
    rows = []
    for number, fields in enumerate(table[1:]):
        if len(fields) != len(header):
            raise CorpusError(
                f"row {number + 2} of {path} has {len(fields)} fields, its header {len(header)}: quote what holds the "
                "separator"
            )
        rows.append(_segment(path, number, dict(zip(header, fields, strict=True)), stem))
    twice = [name for name, count in Counter((row.group, row.id) for row in rows).items() if count > 1]
    if twice:
        raise CorpusError(f"{path} has the id {twice[0][1]!r} twice: make ids unique, or drop the column")
    columns = {code: [_clean(fields[i].strip()) for fields in table[1:]] for i, code in codes.items()}
    told = [f"{code}: column {header[i]}, {_count(columns[code])}" for i, code in codes.items()]
    left = [field or "(no name)" for i, field in enumerate(header) if i not in codes and field not in _ABOUT]
    told += [f"left out, no languages: {', '.join(left)}"] if left else []
    return Corpus(stem, stem, rows, columns, told=tuple(told))


_ABOUT = {"id", "group", "split"}


def _records(text: str, delimiters: Iterable[str]) -> list[list[str]]:
    """Fields of each row that is not blank, by the separator that gives the header most languages. Quotation marks that
    enclose whole fields throughout are those of a spreadsheet; any others belong to the texts."""
    first = text.split("\n", 1)[0]
    delimiter = max(delimiters, key=lambda own: sum(language_of(f.strip(' "')) is not None for f in first.split(own)))
    rows = _quoted(text, delimiter) or [line.split(delimiter) for line in text.split("\n")]
    return [row for row in rows if row != [""]]


def _quoted(text: str, delimiter: str) -> list[list[str]]:
    """Rows of a text whose fields are without a quotation mark, or enclosed in two with those inside doubled; none of a
    text with any other field."""
    field = re.compile(f' *"([^"]*(?:""[^"]*)*)" *|([^"\\n{re.escape(delimiter)}]*)')
    rows: list[list[str]] = [[]]
    at = 0
    while found := field.match(text, at):
        rows[-1].append(found[2] if found[1] is None else found[1].replace('""', '"'))
        at = found.end()
        if at == len(text):
            return rows
        if text[at] not in (delimiter, "\n"):
            break
        if text[at] == "\n":
            rows.append([])
        at += 1
    return []


def _segment(path: Path, number: int, row: Mapping[str, str | None], group: str) -> Segment:
    name = (row.get("split") or "test").strip()
    if name.lower() not in SPLIT_NAMES:
        raise CorpusError(f"{path} has a split {name!r}; known are {', '.join(SPLIT_NAMES)}")
    return Segment(row.get("id") or str(number), row.get("group") or group, SPLIT_NAMES[name.lower()])


def _text(path: Path) -> str:
    """A file's text with plain line ends."""
    payload = read_payload(path)
    coding = next((name for mark, name in _MARKS if payload.startswith(mark)), "utf-8")
    try:
        text = payload.decode(coding)
    except UnicodeDecodeError as error:
        line = payload[: error.start].count(b"\n") + 1
        raise CorpusError(
            f"{path} is no UTF-8 (line {line}): convert it, for example with `iconv -f latin1 -t utf-8`"
        ) from None
    if "\0" in text:
        raise CorpusError(f"{path} holds null bytes: it is no text, or UTF-16 without its mark; convert it to UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _clean(text: str) -> str:
    """A text, normalised; empty where nothing of it can be seen."""
    return nfc(text) if any(unicodedata.category(one) not in _INVISIBLE for one in text) else ""


def _count(texts: Sequence[str]) -> str:
    gaps = sum(not text for text in texts)
    return f"{len(texts)} rows" + (f", {gaps} of them gaps" if gaps else "")


def _told(code: str, path: Path, texts: Sequence[str], split: str) -> str:
    return f"{code}: {path.name}, {split}, {_count(texts)}"
