"""What the README shows runs."""

import contextlib
import io
import re
from pathlib import Path

README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.+?)```", README, re.DOTALL)


def test_python_of_the_readme_runs():
    assert BLOCKS
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        for block in BLOCKS:
            exec(compile(block, "README.md", "exec"), {})
    assert {"router", "group", "changed", "weight_moved"} <= set(re.findall(r"\w+", shown.getvalue()))
