"""The page "Add a source" is right: what it shows, put where it says into a copy, gives a verdict on the board."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "book" / "add_a_source.md").read_text("utf-8")
BLOCK = re.compile(r"^([^\n]+):\n\n```(\w+)\n(.+?)```", re.MULTILINE | re.DOTALL)
BLOCKS = {told: code for told, _, code in BLOCK.findall(PAGE)}


def block(beginning: str) -> str:
    """The code below the paragraph that begins, or whose last line begins, so."""
    (found,) = (code for told, code in BLOCKS.items() if told.startswith(beginning))
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The package, the tests and what they read, with the source of the page added; large data are links."""
    root = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "mechanism", root / "mechanism", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("tests", "requirements"):
        (root / folder).symlink_to(ROOT / folder)
    (root / "data").mkdir()
    for path in (ROOT / "data").iterdir():
        if path.name not in ("claims.yaml", "results", "runs"):
            (root / "data" / path.name).symlink_to(path)
    chapter = root / "mechanism" / "study" / "l_load"
    chapter.mkdir()
    (chapter / "__init__.py").touch()
    for name in ("tables.py", "claims.py", "source.py"):
        (chapter / name).write_text(block(f"`mechanism/study/l_load/{name}`"), "utf-8")
    claims = (ROOT / "data" / "claims.yaml").read_text("utf-8")
    claims = claims.replace("\nclaims:\n", f"{block('Under `sources`')}\nclaims:\n", 1).rstrip("\n")
    (root / "data" / "claims.yaml").write_text(f"{claims}\n{block('At the end of `data/claims.yaml`')}", "utf-8")
    first, second = v4.new_code_cell(block("First cell")), v4.new_code_cell(block("Second cell"))
    first.metadata["tags"] = ["parameters"]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    about = {"mechanism": {"parameters": ["profile"], "chapter": "l_load"}}
    (root / "notebooks").mkdir()
    nbformat.write(
        v4.new_notebook(cells=[first, second], metadata=kernel | about), root / "notebooks" / "50_load.ipynb"
    )
    return root


def run(root: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=root, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root), "MECHANISM_CACHE": str(root / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_its_page_runs_on_the_tiny_model_and_its_verdict_is_on_the_board(copy: Path):
    run(copy, "-m", "mechanism", "run", "--model", "tiny", "--notebooks", "50", "--profile", "full", "--out", "out")
    shown = (
        "from mechanism.report.scoreboard import sources_markdown as board; print(board('claims', Path('out/results')))"
    )
    board = run(copy, "-c", f"from pathlib import Path; {shown}")
    row = next(line for line in board.splitlines() if line.startswith("| **L1**"))
    assert "share of selections" in row
    assert re.search(r"(replicated|refuted|inconclusive) at small scale", row)
    assert "## L. Load of experts" in board
    assert "| **R1** |" in board, "the others are still there"


def test_the_example_keeps_the_rules_of_the_rooms(copy: Path):
    """Without its claims.py the copy fails, and the test that fails names the folder."""
    test = "test_a_chapter_answers_in_files_of_the_same_names"
    code = (
        "import sys; sys.path.insert(0, '.'); from pathlib import Path; import tests.test_rooms as t; "
        "t.STUDY = Path('mechanism/study').resolve(); t.{}('l_load')"
    )
    run(copy, "-c", code.format(test))
    (copy / "mechanism" / "study" / "l_load" / "claims.py").rename(copy / "claims.py")
    with pytest.raises(AssertionError, match=r"study/l_load has no claims\.py"):
        run(copy, "-c", code.format(test))
    (copy / "claims.py").rename(copy / "mechanism" / "study" / "l_load" / "claims.py")


def test_the_bibliography_entry_is_the_one_that_the_claims_name():
    (key,) = re.findall(r"key: (\w+)", block("Under `sources`"))
    assert f"@misc{{{key}," in block("At the end of `book/references.bib`")
