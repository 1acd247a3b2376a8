"""A notebook's cells run in this process, where a kernel would cost seconds."""

from pathlib import Path
from typing import Any

from mechanism.report.normalise import tagged
from mechanism.report.stamp import read_notebook


def execute(path: Path, **parameters: Any) -> dict[str, Any]:
    """Run a notebook's cells here, with parameters that it declares, and return its variables."""
    notebook = read_notebook(path)
    scope: dict[str, Any] = {"__name__": "notebook"}
    (declared,) = tagged(notebook, "parameters")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"cell {cell.id}", "exec"), scope)
            if cell.id == declared.id:
                assert set(parameters) <= set(scope)
                scope |= parameters
    return scope
