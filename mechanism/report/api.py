"""Reference of the package from its docstrings, as Markdown: read from the sources, so that nothing is imported."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from .files import PACKAGE

ROOMS = ("corpus", "nn", "trace", "measure", "models", "study", "bench", "report")
_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Examples?|Notes?):")
_SESSION = re.compile(r"^>>> (?:.+(?:\n|\Z))+", re.MULTILINE)
_ITEM = re.compile(r"([*\w., ]+?): (.*)")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def room_markdown(room: str, package: Path = PACKAGE) -> str:
    """Every module of a room with its public functions and classes, those without docstring left out.

    Raises:
        FileNotFoundError: no such room.
    """
    paths = sorted(path for path in (package / room).rglob("*.py") if not path.stem.startswith("_"))
    if not paths:
        raise FileNotFoundError(f"no room {room!r}: there are {', '.join(ROOMS)}")
    return "\n\n".join(_module(".".join(path.relative_to(package).with_suffix("").parts), path) for path in paths)


def docstring_markdown(text: str) -> str:
    """A docstring as Markdown: sections as bold words, their entries as lists, and sessions of an interpreter, up to
    the next empty line, as code."""
    out: list[str] = []
    section = False
    sessions = _SESSION.sub(lambda found: f"```python\n{found[0].rstrip()}\n```\n", inspect.cleandoc(text))
    for line in sessions.splitlines():
        header = _SECTION.fullmatch(line)
        if header:
            out += ["", f"*{header[1]}*", ""]
            section = True
        elif section and line.startswith("    "):
            out.append(_entry(line[4:]))
        else:
            section = section and not line.strip()
            out.append(line)
    return "\n".join(out).strip()


def _entry(line: str) -> str:
    """A line of a section, without its indentation: a list item, or the going on of one."""
    found = None if line.startswith(" ") else _ITEM.fullmatch(line)
    return f"- `{found[1]}`: {found[2]}" if found else f"  {line.strip()}"


def _module(name: str, path: Path) -> str:
    tree = ast.parse(path.read_text("utf-8"))
    parts = [f"(api-{name.replace('.', '-')})=\n## `{name}`", docstring_markdown(ast.get_docstring(tree) or "")]
    for node in _public(tree):
        kind = "class-" if isinstance(node, ast.ClassDef) else ""  # targets do not tell `Hero` from `hero`
        parts.append(f"(api.{name}.{kind}{node.name})=\n{_definition(node)}")
    return "\n\n".join(part for part in parts if part)


def _public(tree: ast.Module | ast.ClassDef) -> Iterator[_Function | ast.ClassDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, kinds) and ast.get_docstring(node) and (node.name[0] != "_" or node.name == "__call__"):
            yield node


def _definition(node: _Function | ast.ClassDef) -> str:
    """One entry of a definition list; that of a class ends with those of its methods."""
    parts = [docstring_markdown(ast.get_docstring(node) or "")]
    if isinstance(node, ast.ClassDef):
        parts += [_definition(member) for member in _public(node) if not isinstance(member, ast.ClassDef)]
    body = textwrap.indent("\n\n".join(parts), "  ")
    return f"`{_signature(node)}`\n: {body[2:]}"


def _signature(node: _Function | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}{_fields(node)}"
    if {"property", "cached_property"} & {ast.unparse(decorator) for decorator in node.decorator_list}:
        return node.name
    kept = ast.parse(f"def f({ast.unparse(node.args)}): pass").body[0]
    assert isinstance(kept, ast.FunctionDef)
    for place in (kept.args.posonlyargs, kept.args.args):
        place[:] = [one for one in place if one.arg not in ("self", "cls")]
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(kept.args)}){returned}".replace("`", "'")


def _fields(node: ast.ClassDef) -> str:
    """Arguments of a class: the fields of a dataclass, or those of its `__init__`; its bases if it has neither."""
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [member for member in node.body if isinstance(member, ast.AnnAssign)]
        return f"({', '.join(ast.unparse(one).replace(' = ', '=') for one in fields)})"
    made = [one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    if made:
        return _signature(made[0]).removeprefix("__init__").removesuffix(" -> None")
    return f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
