"""The committed corpora, and any other under the same interface."""

from functools import cache
from pathlib import Path

from .build import check_file, read_manifest
from .languages import LANGUAGES
from .reader import load_folder, load_table
from .store import DATA, INDEX_FILE, Corpus, CorpusError, decode_index, decode_lines
from .text import hash_fraction

ROOT = DATA / "corpus"
PARALLEL = ("religion", "tech", "udhr")
DOMAINS = ("code", "maths", "fiction", "politics", "dictionary")


@cache
def committed(name: str) -> Corpus:
    """A committed corpus, its hashes checked while it is read.

    Raises:
        CorpusError: unknown name, a missing file, or content that does not match the manifest.
    """
    manifest = read_manifest(ROOT)
    if name not in manifest:
        raise CorpusError(f"no corpus {name!r} in {ROOT}; there are {' '.join(manifest)}")
    entry = manifest[name]

    def read(file: str) -> bytes:
        return check_file(ROOT / name / file, entry["files"][file]["text_sha256"])

    codes = [code for code in LANGUAGES if f"{code}.txt.xz" in entry["files"]]
    columns = {code: decode_lines(read(f"{code}.txt.xz")) for code in codes}
    return Corpus(name, name, decode_index(read(f"{INDEX_FILE}.xz")), columns, entry["joiner"])


def load(data: str, languages: tuple[str, ...] = ()) -> Corpus:
    """A corpus by name, folder, table or hub set.

    Args:
        data: a committed corpus' name, a folder with one file per language, a `.csv`/`.tsv` table, or `hub:NAME`
            (see `mechanism.corpus.hub`).
        languages: for hub sets, the languages to fetch.

    Raises:
        CorpusError: nothing of that kind is there; the sentence says what was looked for.
    """
    if data.startswith("hub:"):
        from .hub import load_hub

        return load_hub(data.removeprefix("hub:"), languages)
    if data in PARALLEL + DOMAINS:
        return committed(data)
    path = Path(data)
    if path.name.lower().removesuffix(".xz").endswith((".csv", ".tsv")):
        return load_table(path)
    if path.is_dir():
        return load_folder(path)
    raise CorpusError(
        f"no data {data!r}: it is neither a committed corpus ({' '.join(PARALLEL + DOMAINS)}), a folder, "
        "a .csv/.tsv table, nor hub:NAME"
    )


def training_rows(corpus: Corpus, code: str, budget: int | None = None) -> list[int]:
    """Training rows of a language within its budget: whole groups in an order that is the same for all languages,
    so that a smaller language's rows are a subset of a larger one's and their translations are known too.

    Args:
        budget: characters; None for all, and then rows are all that the language has.
    """
    column = corpus.columns[code]
    rows = [i for i in corpus.split("train") if column[i]]
    if budget is None:
        return rows
    groups: dict[str, list[int]] = {}
    for i in rows:
        groups.setdefault(corpus.rows[i].group, []).append(i)
    kept: list[int] = []
    for group in sorted(groups, key=lambda g: hash_fraction(f"budget/{corpus.name}/{g}")):
        size = sum(len(column[i]) for i in groups[group])
        if size <= budget:
            kept += groups[group]
            budget -= size
    return sorted(kept)


def training_budgets(code: str) -> dict[str, int | None]:
    """Characters of training text per committed corpus: a language's budget split over the corpora that have it, in
    proportion to what is there."""
    names = [n for n in ("religion", "tech", *DOMAINS) if code in committed(n).columns]
    total = LANGUAGES[code].train_chars
    if total is None:
        return dict.fromkeys(names)
    sizes = {n: sum(len(committed(n).columns[code][i]) for i in committed(n).split("train")) for n in names}
    return {n: int(total * size / sum(sizes.values())) for n, size in sizes.items()}
