"""The reference of the package: every public name with a docstring, and docstrings as Markdown."""

import ast
from pathlib import Path

import pytest

from mechanism.report.api import ROOMS, docstring_markdown, room_markdown
from mechanism.report.files import BOOK, PACKAGE

SOURCE = '''"""A module."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options.

    Attributes:
        n: how many; seed: of the draws.
    """

    n: int
    seed: int = 0

    def __call__(self, x: float) -> float:
        """Do it."""

    @property
    def half(self) -> float:
        """Half of n."""

    def _hidden(self):
        """Not for readers."""


class Made:
    """Made by hand."""

    def __init__(self, size: int = 3) -> None: ...


def run(x: "list[int]", *rest: int, k=1) -> int:
    """Run it.

    >>> run(1)
    2

    Raises:
        ValueError: too
            large.
    """


def silent(): ...
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text(SOURCE)
    (tmp_path / "room" / "_private.py").write_text('"""Hidden."""\n')
    return tmp_path


def test_signatures_and_members_are_those_of_the_source(package: Path):
    text = room_markdown("room", package)
    assert "## `room.one`" in text
    assert "`class Options(n: int, seed: int=0)`" in text
    assert "`__call__(x: float) -> float`" in text
    assert "`half`" in text
    assert "`class Made(size: int=3)`" in text
    assert "`run(x: 'list[int]', *rest: int, k=1) -> int`" in text
    assert not {"silent", "_hidden", "Hidden"} & set(text.replace("(", " ").split())


def test_sections_become_lists_and_examples_code():
    text = docstring_markdown(ast.get_docstring(ast.parse(SOURCE).body[-2]) or "")  # type: ignore[arg-type]
    assert text == "Run it.\n\n```python\n>>> run(1)\n2\n```\n\n\n*Raises*\n\n- `ValueError`: too\n  large."


def test_text_after_a_section_is_text_again():
    assert docstring_markdown("A.\n\nArgs:\n    x: y.\n\nReturns z.").endswith("- `x`: y.\n\nReturns z.")


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_page_with_all_that_it_documents(room: str):
    text = room_markdown(room)
    for path in (PACKAGE / room).rglob("*.py"):
        kinds = ast.FunctionDef | ast.ClassDef
        for node in (one for one in ast.parse(path.read_text("utf-8")).body if isinstance(one, kinds)):
            if ast.get_docstring(node) and not node.name.startswith("_") and not path.stem.startswith("_"):
                assert f"(api.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}." in text
                assert f"{node.name}" in text
    assert (BOOK / "api" / f"{room}.md").exists()


def test_unknown_room_is_named():
    with pytest.raises(FileNotFoundError, match="no room 'attic': there are corpus"):
        room_markdown("attic")
