"""Content stamps: whether an executed notebook still follows from its source, its parameters and its inputs."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from .normalise import INJECTED

KEY = "mechanism"


def read_notebook(path: Path) -> NotebookNode:
    """A notebook file.

    Raises:
        ValueError: it is none; the message names the file.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is not a notebook: {str(error).splitlines()[0]}") from None


def stamp(notebook: NotebookNode, parameters: Mapping[str, Any], inputs: str) -> str:
    """SHA-256 over the notebook's cells in order (the injected one left out), its parameters and its inputs.

    Args:
        parameters: those that are applied to the notebook; a value that names a file or folder, or a list that does,
            also counts the names, sizes and times of what is there.
        inputs: `tree_hash` of the files that every notebook depends on.
    """
    cells = [
        [cell.cell_type, cell.source, cell.metadata]
        for cell in notebook.cells
        if INJECTED not in cell.metadata.get("tags", [])
    ]
    given = {name: [value, _contents(value)] for name, value in sorted(parameters.items())}
    payload = json.dumps([cells, given, inputs], sort_keys=True, default=str)
    return hashlib.sha256(payload.encode()).hexdigest()


def recorded(copy: Path) -> dict[str, Any]:
    """What the build noted in an executed copy: its `stamp`, `parameters` and `results`; empty when there is none or it
    cannot be read."""
    try:
        return dict(read_notebook(copy).metadata.get(KEY, {}))
    except (FileNotFoundError, ValueError):
        return {}


def _contents(value: Any) -> list[tuple[str, int, int]]:
    if isinstance(value, list | tuple):
        return [found for one in value for found in _contents(one)]
    if not isinstance(value, str) or not value or not Path(value).exists():
        return []
    root = Path(value)
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
