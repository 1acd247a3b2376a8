"""Python that the README and the first pages of the book show runs."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from mechanism.report.stamp import read_notebook

ROOT = Path(__file__).resolve().parents[1]
TOUR = read_notebook(ROOT / "notebooks" / "03_bring_your_own_model.ipynb")
SHOWN = {
    "README": (ROOT / "README.md").read_text("utf-8"),
    "the package": (ROOT / "book" / "api" / "index.md").read_text("utf-8"),
    "bring your own model": TOUR.cells[0].source,
}


@pytest.mark.parametrize("text", SHOWN.values(), ids=SHOWN)
def test_python_that_is_shown_runs(text: str):
    (block,) = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    assert "import mechanism as me" in block
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(block, "shown", "exec"), {})
    assert {"changed", "weight_moved"} <= set(re.findall(r"\w+", shown.getvalue()))
