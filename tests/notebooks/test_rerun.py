"""A second execution prints the same and draws the same figures, byte for byte.

One cheap notebook by default; all of them with `MECHANISM_STRICT=1`.
"""

import json
import os
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mechanism.report.build import build_notebooks, stale
from mechanism.report.files import COPIES, NOTEBOOKS
from mechanism.report.normalise import normalise
from mechanism.report.stamp import read_notebook

STRICT = os.environ.get("MECHANISM_STRICT") == "1"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) if STRICT else ["00_overview"]


def rerun_differences(first: NotebookNode, second: NotebookNode) -> list[str]:
    """Ids of the code cells whose outputs, figures included, differ between two executions; cells tagged
    `nbval-ignore-output`, which print times or the machine, are left out.

    Raises:
        ValueError: the two do not have the same cells.
    """
    one, other = (_outputs(normalise(notebook)) for notebook in (first, second))
    if list(one) != list(other):
        raise ValueError("the executions are not of one notebook: their cells differ")
    return [cell for cell in one if one[cell] != other[cell]]


def _outputs(notebook: NotebookNode) -> dict[str, str]:
    cells = [
        c for c in notebook.cells if c.cell_type == "code" and "nbval-ignore-output" not in c.metadata.get("tags", [])
    ]
    return {cell.id: json.dumps(cell.outputs, sort_keys=True) for cell in cells}


@pytest.mark.parametrize("name", NAMES)
def test_second_execution_gives_the_same(name: str, tmp_path: Path):
    first = COPIES
    if stale((name,)):
        first = tmp_path / "first"
        build_notebooks((name,), output=first, results=tmp_path / "results", progress=False)
    build_notebooks((name,), output=tmp_path / "second", results=tmp_path / "more", progress=False)
    one, other = (read_notebook(folder / f"{name}.ipynb") for folder in (first, tmp_path / "second"))
    assert rerun_differences(one, other) == []


def executed(*texts: str, tags: tuple[str, ...] = ()) -> NotebookNode:
    cells = [new_code_cell("print(...)", id=f"c{i}", metadata={"tags": list(tags)}) for i in range(len(texts))]
    for cell, text in zip(cells, texts, strict=True):
        image = new_output("display_data", {"image/png": text.encode().hex()})
        cell.outputs = [new_output("stream", name="stdout", text="same"), image]
    return new_notebook(cells=cells)


def test_a_figure_that_changed_is_named():
    assert rerun_differences(executed("a", "b"), executed("a", "b")) == []
    assert rerun_differences(executed("a", "b"), executed("a", "c")) == ["c1"]


def test_times_may_differ_and_other_notebooks_may_not_be_compared():
    times = ("nbval-ignore-output",)
    assert rerun_differences(executed("a", tags=times), executed("b", tags=times)) == []
    with pytest.raises(ValueError, match="not of one notebook"):
        rerun_differences(executed("a"), executed("a", "b"))
