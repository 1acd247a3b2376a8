"""The folder of a run of the report on another model: what is where, and its summary, `run.json`.

`notebooks/` executed pages; `results/` this run's own records and numbers; `studies/` results that take long;
`run.json` the summary; `index.html` the same for readers.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from .build import BuildError
from .files import write_atomic

PAGES, RECORDS, STUDIES, SUMMARY, INDEX = "notebooks", "results", "studies", "run.json", "index.html"
VERSION = 1


class RerunError(BuildError):
    """A run that cannot start, or whose pages failed; the sentence says which and what to do."""


def prepare(folder: Path) -> None:
    """Make the folder of a run, and try to write to it.

    Raises:
        RerunError: it cannot be written to, or holds something that is no run.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise RerunError(
            f"cannot write to {folder} ({error.strerror or error}): name another folder with --out"
        ) from None
    if not (folder / SUMMARY).exists() and any(folder.iterdir()):
        raise RerunError(f"{folder} is not empty and holds no run: name another folder with --out")


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run; empty where there is none.

    Raises:
        RerunError: it cannot be read, or another version of Mechanism wrote it.
    """
    path = folder / SUMMARY
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise RerunError(f"{path} is not the summary of a run that this version reads: name another folder")
    return found


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write the summary of a run, whole or not at all.

    Raises:
        RerunError: the disk is full or cannot be written to.
    """
    try:
        write_atomic(folder / SUMMARY, json.dumps({"version": VERSION} | summary, indent=1, default=str) + "\n")
    except OSError as error:
        raise RerunError(f"cannot write to {folder} ({error.strerror or error}); what is there was kept") from None
