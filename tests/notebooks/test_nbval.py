"""nbval runs what the build did not execute as it stands now, and a changed number does not pass."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mechanism.report.build import build_notebooks, stale

KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
CELL = "print('loss', round(1 / 3, 3))"


def written(path: Path, source: str, output: str | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    cell = new_code_cell(source, id="loss", metadata={"tags": ["nbval-check-output"]})
    cell.execution_count = None if output is None else 1
    cell.outputs = [] if output is None else [new_output("stream", name="stdout", text=output)]
    nbformat.write(new_notebook(cells=[cell], metadata=KERNEL), path)
    return path


def test_what_the_build_executed_stands_until_its_source_or_an_input_changes(tmp_path: Path):
    source, given = tmp_path / "notebooks" / "nb.ipynb", tmp_path / "input.txt"
    written(source, CELL)
    given.write_text("one")
    where: dict[str, Any] = {
        "output": tmp_path / "copies", "sources": source.parent, "results": tmp_path / "results", "inputs": (given,),
    }  # fmt: skip
    assert stale(**where) == ["nb"]
    build_notebooks(progress=False, **where)
    assert stale(**where) == []
    written(source, CELL.replace("1 / 3", "1 / 2.9"))
    assert stale(**where) == ["nb"]
    written(source, CELL)
    assert stale(**where) == []
    given.write_text("two")
    assert stale(**where) == ["nb"]


@pytest.mark.parametrize(("printed", "code"), [("loss 0.333", 0), ("loss 0.345", 1)])
def test_nbval_passes_the_number_that_is_printed_and_no_other(printed: str, code: int, tmp_path: Path):
    notebook = written(tmp_path / "notebooks" / "nb.ipynb", CELL, f"{printed}\n")
    options = ["-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env", str(notebook)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    assert (
        subprocess.run(
            [sys.executable, "-m", "pytest", *options], cwd=tmp_path, env=clean, capture_output=True
        ).returncode
        == code
    )
