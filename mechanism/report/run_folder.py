"""The folder of a run of the report on another model: what is where, and its summary, `run.json`.

`notebooks/` executed pages; `results/` this run's own records and numbers; `studies/` results that take long;
`run.json` the summary; `index.html` the same for readers.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .build import BuildError
from .claims import load_claims
from .files import RESULTS, write_atomic
from .record import UNDECIDED, read_records, read_undecided, read_units
from .verdicts import Verdict

PAGES, RECORDS, STUDIES, SUMMARY, INDEX = "notebooks", "results", "studies", "run.json", "index.html"
VERSION = 1
REPORT = "report"
"""Stands for the committed records of the report, where a folder of a run is asked for."""


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


@dataclass(frozen=True)
class Run:
    """What a run found.

    Attributes:
        label: name of the model; summary: content of `run.json`.
        records, undecided, units: by claim id, as in `record`.
    """

    label: str
    summary: Mapping[str, Any]
    records: Mapping[str, Mapping[str, Any]]
    undecided: Mapping[str, Mapping[str, Any]]
    units: Mapping[str, Mapping[str, Any]]

    def cell(self, claim: str) -> dict[str, Any]:
        """Verdict, estimate, interval, n, p and unit of a claim, or the reason why it is undecided."""
        found = self.records.get(claim)
        if found is None:
            return {"verdict": None, "label": UNDECIDED, "note": self.undecided.get(claim, {}).get("reason", "")}
        keys = ("verdict", "estimate", "interval", "n", "p", "unit", "note", "rule")
        verdict = load_claims()[claim].label(Verdict(found["verdict"]))
        return {"label": verdict} | {key: found.get(key) for key in keys}


def load_run(folder: str | Path) -> Run:
    """A run by its folder, or the report itself by the name `report`.

    Raises:
        RerunError: there is no run.
    """
    if str(folder) == REPORT:
        return Run("the report", {}, read_records(RESULTS), {}, {})
    summary, results = read_summary(Path(folder)), Path(folder) / RECORDS
    if not summary:
        raise RerunError(
            f"no run in {folder}: it has no {SUMMARY}; `mechanism run --model MODEL --out {folder}` makes one"
        )
    kept = read_records(results), read_undecided(results), read_units(results)
    return Run(summary["model"]["name"], summary, *kept)


def load_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Several runs, their labels distinct: those of the same model are told apart by their folders.

    Raises:
        RerunError: there is none, or a folder holds none.
    """
    if not folders:
        raise RerunError("name the folders of runs to compare")
    runs = [load_run(folder) for folder in folders]
    labels = [run.label for run in runs]
    return [
        run if labels.count(run.label) == 1 else replace(run, label=f"{run.label} ({folder})")
        for run, folder in zip(runs, folders, strict=True)
    ]
