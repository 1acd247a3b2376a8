"""The pages on errors and guarantees say what the code does: every cause is on the page, and no cause that is none."""

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from mechanism.nn.errors import LayerError
from mechanism.trace import check, errors
from mechanism.trace.checks import FULL, QUICK
from mechanism.trace.families import families, tiny_model

ROOT = Path(__file__).resolve().parents[2]
ROOMS = [ROOT / "mechanism" / "trace", ROOT / "mechanism" / "nn"]
ERRORS = (ROOT / "book" / "errors.md").read_text("utf-8")
GUARANTEES = (ROOT / "book" / "guarantees.md").read_text("utf-8")
CLASSES = {
    name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
} | {"LayerError": LayerError}


def literal(node: ast.expr) -> str:
    """The fixed text of a message, `…` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(v) if isinstance(v, ast.Constant) else "…" for v in node.values)
    return "…"


def messages(call: ast.Call, functions: dict[str, ast.FunctionDef]) -> Iterator[str]:
    """Texts an exception can be made with: its argument's, or those that the function making it returns."""
    for argument in call.args:
        if isinstance(argument, ast.Call) and isinstance(argument.func, ast.Name) and argument.func.id in functions:
            returned = [n.value for n in ast.walk(functions[argument.func.id]) if isinstance(n, ast.Return)]
            yield from (literal(value) for value in returned if value is not None)
        else:
            yield literal(argument)


@cache
def raised() -> set[tuple[str, str]]:
    """(class, message) of everything that the rooms raise. A broken contract is raised again by `require`, which names
    it; the bare message inside is the contract's own."""
    found = set()
    for path in (path for room in ROOMS for path in room.glob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                name = node.exc.func.id
                found |= {(name, m) for m in messages(node.exc, functions) if name in CLASSES and m != "…"}
    return found


@cache
def documented() -> set[tuple[str, str]]:
    """(class, phrase) of every row of the page."""
    found, name = set(), ""
    for line in ERRORS.splitlines():
        name = line.removeprefix("## ").strip() if line.startswith("## ") else name
        row = re.match(r"\| `([^`]+)` \| .+ \| .+ \|$", line)
        if row:
            found.add((name, row[1]))
    return found


def matches(phrase: str, message: str) -> bool:
    return re.search(".*".join(map(re.escape, phrase.split("…"))), message) is not None


def test_every_class_has_its_section():
    sections = re.findall(r"^## (\w+)$", ERRORS, re.MULTILINE)
    assert {"RouterError", "CaptureError"} < set(CLASSES)
    assert set(CLASSES) <= set(sections)


def test_every_exception_of_the_package_is_named():
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "mechanism").rglob("*.py"))
    named = set(re.findall(r"^class (\w+(?:Error|Exception))\(", sources, re.MULTILINE))
    assert len(named) > 15
    assert {name for name in named if f"## {name}" not in ERRORS and f"| `{name}` |" not in ERRORS} == set()


def test_every_cause_is_on_the_page():
    assert len(raised()) > 110
    missing = {(c, m) for c, m in raised() if not any(c == k and matches(p, m) for k, p in documented())}
    assert not missing, "add rows to book/errors.md"


def test_every_row_is_a_cause():
    stale = {(k, p) for k, p in documented() if not any(c == k and matches(p, m) for c, m in raised())}
    assert not stale, "no such message is raised any more"


def test_a_message_that_is_not_on_the_page_is_noticed():
    assert matches("layer … has no router", "…: layer … has no router; routers are in layers …")
    assert not matches("layer … has two routers", "…: layer … has no router; routers are in layers …")


@pytest.fixture(scope="module")
def extension() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "book" / "_ext" / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_of_contracts_comes_from_their_docstrings(extension: ModuleType):
    lines = extension.contracts_markdown().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == [contract.__name__ for contract in FULL]
    assert sum(line.endswith("| at attach |") for line in lines) == len(QUICK)
    assert all(line.count("|") == 4 for line in lines)
    assert "```{contracts}" in GUARANTEES


def refusing() -> dict[str, set[str]]:
    """Family and refused contracts of every row of the page's table."""
    rows = re.findall(r"^\| (\w+) \| .+ \| .+ \| ((?:`\w+`(?:, )?)+) \|$", GUARANTEES, re.MULTILINE)
    return {family: set(re.findall(r"`(\w+)`", names)) for family, names in rows}


def test_the_table_names_families():
    assert len(refusing()) == 6
    assert set(refusing()) < set(families())


@pytest.mark.parametrize("family", sorted(refusing()))
def test_families_refuse_what_the_page_says(family: str):
    chosen = [contract for contract in FULL if contract not in QUICK]
    found = {r.contract for r in check(tiny_model(family), chosen) if r.status == "refused"}
    assert found == refusing()[family]
