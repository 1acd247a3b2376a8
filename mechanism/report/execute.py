"""One notebook through papermill: its declared parameters, its execution, and the cell at which it failed."""

import ast
import copy
import logging
import math
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
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


def typed(name: str, value: Any, declared: Mapping[str, Any]) -> Any:
    """A parameter's value as its declared type, or that of its default, from such a value or a command line's text.

    >>> typed("languages", "[en, no]", {"inferred_type_name": "list", "default": "None"})
    ['en', 'no']
    >>> typed("seed", "1e3", {"inferred_type_name": "int", "default": "0"})
    1000

    Args:
        declared: of `declared_parameters`.

    Raises:
        ValueError: it is none of that type.
    """
    kind = declared["inferred_type_name"]
    if kind == "None":  # no annotation
        with suppress(ValueError, SyntaxError):
            kind = type(ast.literal_eval(declared["default"])).__name__
    if declared["default"] == "None" and (value is None or str(value).lower() in ("none", "null")):
        return None
    try:
        found = _TYPES[kind](value) if kind in _TYPES else value
    except (ValueError, TypeError):
        raise ValueError(f"parameter {name!r} is {value!r}: {_TOLD[kind]} is needed") from None
    return found


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not float(value).is_integer():
        raise ValueError
    return int(value) if isinstance(value, int) else int(float(value))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError
    return words[value.lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str | Path):
        raise TypeError
    return str(value)


def _list(value: Any) -> list[Any]:
    """Of `[a, b]` or `a,b`, where nothing but whole numbers has a meaning of its own: `no` is Norwegian."""
    if isinstance(value, str):
        inner = value.strip().removeprefix("[").removesuffix("]")
        parts = [part.strip().strip("'\"") for part in inner.split(",")]
        return [int(part) if part.isdecimal() else part for part in parts if part]
    if not isinstance(value, list | tuple) or any(isinstance(one, bool) for one in value):
        raise TypeError
    return list(value)


_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "int": _whole, "float": _number, "bool": _truth, "str": _text, "list": _list,
}  # fmt: skip
_TOLD = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "list": "a list (a,b)",
}  # fmt: skip


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
