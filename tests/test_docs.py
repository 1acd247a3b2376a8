"""What the documentation shows runs: examples of docstrings, and commands of the README and of the book."""

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mechanism.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
EXAMPLE = re.compile(r"^ +>>> ", re.MULTILINE)
MODULES = [path for path in sorted((ROOT / "mechanism").rglob("*.py")) if EXAMPLE.search(path.read_text("utf-8"))]
BLOCK = re.compile(r"```bash\n(.+?)```", re.DOTALL)
INLINE = re.compile(r"`(mechanism [^`]+)`")
# What readers fill in, or that stands for several words.
OPEN = re.compile(r"[|…]|\.\.\.|<|\b[A-Z]{2,}\b")
UsageError = typer.BadParameter.__mro__[1]  # of click, or of the copy of it inside typer
# Cheap ones are run, on the small model in the repository.
RUN = ("calculate", "claims", "contracts", "corpus verify", "evaluate")


def commands(path: Path) -> Iterator[str]:
    """Lines of bash blocks, comments and prompts left out, and commands in the text."""
    text = path.read_text("utf-8")
    for block in BLOCK.findall(text):
        lines = (re.sub(r"\s+#.*", "", line).strip() for line in block.replace("\\\n", " ").splitlines())
        yield from filter(None, lines)
    yield from INLINE.findall(text)


def ours(line: str) -> str:
    """Arguments of a call of `mechanism`; nothing of another command or an open one."""
    words = shlex.split(line)
    return shlex.join(words[1:]) if Path(words[0]).name == "mechanism" and not OPEN.search(line) else ""


SHOWN = {(path.name, words) for path in PAGES for line in commands(path) if (words := ours(line))}
CALLS = sorted((page, words) for page, words in SHOWN if not words.startswith("--"))


def understand(words: list[str]) -> None:
    """Parse a call, without acting on it.

    Raises:
        KeyError: no such command; UsageError: its options or arguments do not fit.
    """
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    if words[-1:] != ["--help"]:
        command.make_context("mechanism", list(words))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_of_docstrings_hold(path: Path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def test_there_are_examples_and_commands():
    assert len(MODULES) >= 5
    assert len(CALLS) >= 8
    assert {page for page, _ in CALLS} >= {"README.md", "index.md", "method.md", "validate.md"}


@pytest.mark.parametrize(("page", "line"), CALLS)
def test_shown_commands_exist_with_their_options(page: str, line: str):
    understand(shlex.split(line))


@pytest.mark.parametrize("line", ["notebook", "evaluate tiny --langs en", "evaluate", "calculate --languages many"])
def test_a_command_that_is_not_there_is_noticed(line: str):
    with pytest.raises((KeyError, UsageError)):
        understand(shlex.split(line))


@pytest.mark.parametrize("line", sorted({line for _, line in CALLS if line.startswith(RUN) and "--all" not in line}))
def test_shown_commands_run_on_the_small_model(line: str):
    words = shlex.split(line.replace("path/to/a/moe", "tiny"))
    if words[0] == "evaluate":
        words += ["--max-segments", "2", "--data", "tech"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_make_targets_exist(path: Path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = {line.split()[1] for line in commands(path) if line.startswith("make ")}
    assert shown <= targets
