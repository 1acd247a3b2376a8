"""The rooms of the package import one way only, and stay small."""

import ast
import functools
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mechanism"
MODULES = sorted(PACKAGE.rglob("*.py"))
GROUND = ("corpus", "nn", "trace", "measure")
MAY_IMPORT: dict[str, set[str]] = {
    **{room: {room} for room in GROUND},
    "models": {"models", *GROUND},
    "study": {"study", "models", *GROUND},
    "bench": {"bench", "study", "models", *GROUND},
    "report": {"report", "study", "models", *GROUND},
    "cli": {"cli", "report", "bench", "study", "models", *GROUND},
    "__main__": {"cli"},
    "front": {"report", "study", "models", *GROUND},
    "__init__": {"front", "report", "study", "models", *GROUND},
}


def parts(module: Path) -> tuple[str, ...]:
    """Package path of a file, `mechanism` first; a package's own file ends in `__init__`."""
    return (PACKAGE.name, *module.relative_to(PACKAGE).with_suffix("").parts)


def room(module: Path) -> str:
    return parts(module)[1]


def imported(tree: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Dotted paths of everything imported anywhere in a module, relative imports resolved against its path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = path[: len(path) - node.level] if node.level else ()
            source = base + tuple((node.module or "").split(".") if node.module else ())
            yield from ((*source, alias.name) for alias in node.names)


def rooms_imported(source: str, path: tuple[str, ...]) -> set[str]:
    targets = imported(ast.parse(source), path)
    return {target[1] if len(target) > 1 else "__init__" for target in targets if target[0] == PACKAGE.name}


def functions(module: Path) -> Iterator[int]:
    """Lengths in lines, signature included, docstring not."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            docstring = first if ast.get_docstring(node, clean=False) is not None else None
            described = docstring.end_lineno - docstring.lineno + 1 if docstring and docstring.end_lineno else 0
            yield (node.end_lineno or node.lineno) - node.lineno + 1 - described


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from ..nn.lm import routers", {"nn"}),
        ("from .. import trace, corpus", {"trace", "corpus"}),
        ("from . import other", {"measure"}),
        ("from .other import name", {"measure"}),
        ("import mechanism.study.passes as p", {"study"}),
        ("from mechanism import cli", {"cli"}),
        ("import mechanism", {"__init__"}),
        ("def f():\n    from ..report import record", {"report"}),
        ("import numpy.linalg\nfrom torch import nn", set()),
    ],
)
def test_imports_are_resolved(source: str, found: set[str]):
    assert rooms_imported(source, ("mechanism", "measure", "divergence")) == found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: ".".join(parts(module)))
def test_room_imports_only_what_it_may(module: Path):
    assert room(module) in MAY_IMPORT, f"{module.name} stands in no known room"
    forbidden = rooms_imported(module.read_text(encoding="utf-8"), parts(module)) - MAY_IMPORT[room(module)]
    assert not forbidden, f"{room(module)} may not import {', '.join(sorted(forbidden))}"


STUDY = PACKAGE / "study"
FLOORS = {
    "base": {"base"},
    "embedded": {"base", "embedded"},
    "grid": {"base", "grid"},
    "clones": {"base", "grid", "clones"},
    "skill": {"base", "grid", "grids", "clones", "r_multilingual", "skill"},
}
CHAPTERS = sorted(
    path.name for path in STUDY.iterdir() if path.is_dir() and path.name[0] not in "_." and path.name not in FLOORS
)
STUDIES = sorted(STUDY.rglob("*.py"))
IN_FOLDERS = [path for path in STUDIES if path.parent != STUDY]


def floor(module: Path) -> str:
    """Folder of a module of study."""
    return module.relative_to(STUDY).parts[0]


def studies_imported(module: Path) -> set[tuple[str, ...]]:
    """Modules of study that a module of study imports, as paths below it."""
    found = imported(ast.parse(module.read_text(encoding="utf-8")), parts(module))
    known = {parts(path)[2:] for path in STUDIES}
    below = [target[2:] for target in found if target[:2] == (PACKAGE.name, "study")]
    return {path if path in known else path[:-1] for path in below} & known - {parts(module)[2:]}


@pytest.mark.parametrize(
    "module", [path for path in STUDIES if path.parent != STUDY], ids=lambda path: ".".join(parts(path))
)
def test_chapters_never_meet(module: Path):
    own = floor(module)
    may = FLOORS.get(own, {own, *FLOORS})
    forbidden = {path[0] for path in studies_imported(module)} - may
    assert not forbidden, f"study/{own} may not import study/{', '.join(sorted(forbidden))}"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_answers_in_files_of_the_same_names(chapter: str):
    lacking = [name for name in ("claims.py", "tables.py", "source.py") if not (STUDY / chapter / name).exists()]
    assert not lacking, f"study/{chapter} has no {', '.join(lacking)}"


@pytest.mark.parametrize("folder", [*FLOORS, *CHAPTERS])
def test_folders_of_study_are_small(folder: str):
    assert len([path for path in (STUDY / folder).glob("*.py") if path.stem != "__init__"]) <= 20


def test_chains_of_imports_inside_study_are_short():
    graph = {parts(path)[2:]: studies_imported(path) for path in STUDIES}

    @functools.cache
    def longest(path: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        return (path, *max(map(longest, graph[path]), key=len, default=()))

    chain = max(map(longest, graph), key=len)
    assert len(chain) - 1 <= 6, " -> ".join(map(".".join, chain))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: ".".join(parts(module)))
def test_file_is_short(module: Path):
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 400


def test_functions_are_short():
    lengths = [length for module in MODULES for length in functions(module)]
    assert statistics.median(lengths) <= 12
    assert statistics.quantiles(lengths, n=10)[-1] <= 45
