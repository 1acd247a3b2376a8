"""One notebook through papermill: its declared parameters, its execution, and the cell at which it failed."""

import copy
import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from .normalise import INJECTED

ENGINE = "mechanism"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_CELL_LINES, _TRACEBACK_LINES = 4, 12
_ALLOWED = "raises-exception"
_KERNEL = {"kernel_name": "python3", "start_timeout": 120, "extra_arguments": ["--log-level=ERROR"]}


@dataclass(frozen=True)
class CellFailure:
    """A notebook that stopped.

    Attributes:
        notebook: its name.
        cell: position of the cell in the source, counted from 1; 0 when no cell is to blame.
        source: the cell's code.
        reason: last lines of the traceback, or what happened to the kernel.
        executed: the notebook with its outputs up to there, if there are any.
    """

    notebook: str
    cell: int
    source: str
    reason: str
    executed: NotebookNode | None = None

    def __str__(self) -> str:
        lines = self.source.splitlines()
        shown = lines[:_CELL_LINES] + (["..."] if len(lines) > _CELL_LINES else [])
        code = "\n".join(f"    | {line}" for line in shown)
        place = f"{self.notebook}, cell {self.cell}" if self.cell else self.notebook
        reason = "\n".join(f"    {line}" for line in self.reason.splitlines()[-_TRACEBACK_LINES:])
        return "\n".join(part for part in (f"{place} failed:", code, reason) if part)


class _Engine(NBClientEngine):
    """Papermill's own engine, handing over the notebook it executed: papermill itself raises for every error, also one
    in a cell that is tagged to raise."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, kept: list[NotebookNode], **options: Any) -> None:
        super().execute_managed_notebook(nb_man, kernel_name, **options)
        kept.append(copy.deepcopy(nb_man.nb))


papermill_engines.register(ENGINE, _Engine)


def declared_parameters(path: Path) -> dict[str, dict[str, Any]]:
    """Parameters of a notebook by name, each with `inferred_type_name`, `default` and `help`; empty without a
    parameters cell."""
    import papermill

    return dict(papermill.inspect_notebook(str(path)))


def execute(source: Path, parameters: Mapping[str, Any], progress: bool) -> NotebookNode | CellFailure:
    """Run a notebook in its own folder, on request with a bar of its cells on standard error.

    Returns the executed notebook, or its failure.
    """
    import papermill

    logging.getLogger("papermill").setLevel(logging.ERROR)
    kept: list[NotebookNode] = []
    bar = {"desc": source.stem} if progress else False
    options = {"cwd": source.parent, "engine_name": ENGINE, "progress_bar": bar, "kept": kept}
    with tempfile.TemporaryDirectory(prefix="mechanism-") as folder:
        aside = Path(folder) / source.name
        try:
            return papermill.execute_notebook(source, aside, dict(parameters), **_KERNEL, **options)
        except PapermillExecutionError as error:
            cells = kept[0].cells[: error.cell_index + 1]
            expected = _ALLOWED in cells[-1].metadata.get("tags", [])
            return kept[0] if expected else replace(_failure(source.stem, cells, error), executed=kept[0])
        except DeadKernelError as error:
            return CellFailure(source.stem, 0, "", f"{type(error).__name__}: {error}")


def _failure(name: str, cells: list[NotebookNode], error: PapermillExecutionError) -> CellFailure:
    """The failure of the last of the cells; the injected one is not in the source and does not count."""
    position = sum(INJECTED not in cell.metadata.get("tags", []) for cell in cells)
    trace = _ANSI.sub("", "\n".join(error.traceback)) or f"{error.ename}: {error.evalue}"
    return CellFailure(name, position, error.source, trace)
