"""A built site is fresh until a source, an input, a record or a published output changes, and says what did."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mechanism.report.files import BOOK, tree_hash
from mechanism.report.published import STAMPS, altered, outdated, read_stamps, site_stamps, write_stamps
from mechanism.report.stamp import KEY, read_notebook, stamp

SITE = BOOK / "_build" / "html"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A built site with one notebook, its source, its copy, an input and a record."""
    for name in ("notebooks", "copies", "results", "package", "site/_sources/notebooks"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "package" / "a.py").write_text("x = 1\n")
    (tmp_path / "results" / "R1.json").write_text("{}")
    notebook = new_notebook(cells=[new_code_cell("print(1)", id="c")])
    nbformat.write(notebook, tmp_path / "notebooks" / "00_a.ipynb")
    fresh = stamp(read_notebook(tmp_path / "notebooks" / "00_a.ipynb"), {}, tree_hash([tmp_path / "package"]))
    notebook.metadata[KEY] = {"stamp": fresh, "parameters": {}, "results": []}
    for folder in ("copies", "site/_sources/notebooks"):
        nbformat.write(notebook, tmp_path / folder / "00_a.ipynb")
    write_stamps(tmp_path / "site", tmp_path / "copies", tmp_path / "results")
    return tmp_path


@pytest.fixture
def told(root: Path) -> Callable[[], list[str]]:
    def check() -> list[str]:
        late = outdated(root / "site", root / "notebooks", [root / "package"], root / "results")
        return [*altered(root / "site"), *late]

    return check


def test_nothing_is_said_of_a_fresh_site(told: Callable[[], list[str]]):
    assert told() == []


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("notebooks/00_a.ipynb", "print(1)", "print(2)", "00_a: the notebook, its parameters"),
        ("package/a.py", "x = 1", "x = 2", "00_a: the notebook, its parameters"),
        ("results/R1.json", "{}", '{"n": 1}', "records: a verdict or a number was recorded"),
        ("site/_sources/notebooks/00_a.ipynb", "print(1)", "print(3)", "00_a: its outputs were changed"),
    ],
)
def test_what_changed_is_named(root: Path, told: Callable[[], list[str]], path: str, old: str, new: str, expected: str):
    (root / path).write_text((root / path).read_text().replace(old, new))
    (line,) = told()
    assert line.startswith(expected)


def test_pages_that_are_missing_or_left_over_are_named(root: Path, told: Callable[[], list[str]]):
    (root / "notebooks" / "00_a.ipynb").rename(root / "notebooks" / "01_b.ipynb")
    (root / "site" / "_sources" / "notebooks" / "00_a.ipynb").unlink()
    assert told() == ["00_a: its executed copy is gone", "00_a: its source is gone", "01_b: it is not in the site"]


def test_a_folder_without_stamps_says_how_to_build_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="build the site with `mechanism book`"):
        read_stamps(tmp_path)


@pytest.mark.skipif(not (SITE / STAMPS).exists(), reason="the site has not been built: make book")
def test_the_built_site_shows_the_executed_copies():
    assert altered(SITE) == []
    assert read_stamps(SITE)["notebooks"] == site_stamps(SITE / "_sources" / "notebooks")["notebooks"]
