"""The folder of a run of the report on another model: what is where, and its summary, `run.json`.

`notebooks/` executed pages; `results/` this run's own records and numbers; `studies/` results that take long;
`run.json` the summary; `index.html` the same for readers.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .build import BuildError
from .files import write_atomic

SUMMARY, INDEX = "run.json", "index.html"
VERSION = 1


class RerunError(BuildError):
    """A run that cannot start, or whose pages failed; the sentence says which and what to do."""


@dataclass(frozen=True)
class RunFolder:
    """Places in the folder of a run."""

    path: Path

    @property
    def notebooks(self) -> Path:
        return self.path / "notebooks"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def studies(self) -> Path:
        return self.path / "studies"

    def prepare(self) -> None:
        """Make the folder, and try to write to it.

        Raises:
            RerunError: it cannot be written to, or holds something that is no run.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path, prefix=".", suffix=".tmp")
            os.close(handle)
            Path(name).unlink()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RerunError(f"cannot write to {self.path} ({reason}): name another folder with --out") from None
        if not (self.path / SUMMARY).exists() and any(self.path.iterdir()):
            raise RerunError(f"{self.path} is not empty and holds no run: name another folder with --out")

    def read(self) -> dict[str, Any]:
        """The summary; empty where there is none.

        Raises:
            RerunError: it cannot be read, or another version of Mechanism wrote it.
        """
        path = self.path / SUMMARY
        if not path.exists():
            return {}
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("version") != VERSION:
            raise RerunError(f"{path} is not the summary of a run that this version reads: name another folder")
        return found

    def write(self, summary: dict[str, Any]) -> None:
        """Write the summary, whole or not at all.

        Raises:
            RerunError: the disk is full or cannot be written to.
        """
        try:
            write_atomic(self.path / SUMMARY, json.dumps({"version": VERSION} | summary, indent=1, default=str) + "\n")
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RerunError(f"cannot write to {self.path} ({reason}); what is there was kept") from None
