"""Places, content hashes and atomic writes."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ..corpus.library import DATA

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parent
HOME = "https://github.com/mechanism-report/mechanism"
"""Where the repository is published."""
NOTEBOOKS = REPOSITORY / "notebooks"
BOOK = REPOSITORY / "book"
COPIES = BOOK / "notebooks"
RESULTS = DATA / "results"
CLAIMS = DATA / "claims.yaml"
TWINS = DATA / "twins.yaml"
AMENDMENTS = DATA / "amendments.yaml"
FACTS = DATA / "facts.yaml"
CONSTRAINTS = REPOSITORY / "requirements" / "constraints.txt"
# What an executed notebook depends on besides its own text and parameters.
_INPUT_DATA = ("corpus/manifest.json", "tokenizer", "configs", "runs", "baselines", "models")
INPUTS = (PACKAGE, *(DATA / name for name in _INPUT_DATA), CLAIMS, TWINS, FACTS, CONSTRAINTS)
_CHUNK = 1 << 20
_IGNORED_SUFFIXES = {".pyc", ".tmp"}


def results_folder(folder: Path | None = None) -> Path:
    """Where records and numbers go: `folder`, else `$MECHANISM_RESULTS`, else `data/results`."""
    return Path(folder or os.environ.get("MECHANISM_RESULTS") or RESULTS)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. The same text is parsed once in a process: what is returned must not be changed."""
    return _parsed(path.read_text("utf-8"))


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        cache = any(part == "__pycache__" or part.startswith(".") for part in parts)
        if path.is_file() and not cache and path.suffix not in _IGNORED_SUFFIXES:
            yield path


def tree_hash(roots: Iterable[Path], suffixes: tuple[str, ...] = ()) -> str:
    """SHA-256 over names and contents of files and folders; caches, hidden and temporary files are left out.

    Args:
        roots: files or folders; a missing one counts as empty.
        suffixes: keep only files whose name ends so; () keeps all.
    """
    digest = hashlib.sha256()
    for root in roots:
        for path in _files(root):
            if not suffixes or path.name.endswith(suffixes):
                name = path.relative_to(root.parent).as_posix()
                digest.update(f"{name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def code_hash() -> str:
    """SHA-256 over the package's Python and YAML sources."""
    return tree_hash([PACKAGE], (".py", ".yaml"))


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one, whatever happens in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
