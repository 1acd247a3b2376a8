"""Reference outputs of notebooks: what cells tagged `nbval-check-output` printed, kept beside the tests.

Notebook sources are committed without outputs, and without outputs nbval has nothing to compare. So the texts of the
tagged cells are kept by cell id in a file per notebook, and executed copies are compared with them: words exactly,
numbers to one unit in the last digit that the reference prints, whole numbers exactly.
"""

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from nbformat import NotebookNode

from .files import COPIES, REPOSITORY, write_atomic
from .normalise import normalise, tagged, texts
from .stamp import read_notebook

TAG = "nbval-check-output"
REFERENCES = REPOSITORY / "tests" / "notebooks" / "reference"
_NUMBER = re.compile(r"[+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Difference:
    """A checked cell whose output is not the reference's; `found` or `expected` is None where the cell is missing."""

    notebook: str
    cell: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        return f"{self.notebook}, cell {self.cell}: expected {self.expected!r}, found {self.found!r}"


def checked_outputs(notebook: NotebookNode) -> dict[str, str]:
    """Text of each tagged cell of an executed notebook, by cell id.

    Raises:
        ValueError: a tagged cell printed nothing, so that there is nothing to check.
    """
    found = {}
    for cell in tagged(normalise(notebook), TAG):
        text = "".join(map(texts, cell.outputs)).strip()
        if not text:
            raise ValueError(f"cell {cell.id} is tagged {TAG} and has no text output; was the notebook executed?")
        found[cell.id] = text
    return found


def update(name: str, copies: Path = COPIES, references: Path = REFERENCES) -> Path:
    """Write the reference of a notebook from its executed copy, and return its path."""
    path = references / f"{name}.json"
    outputs = checked_outputs(read_notebook(copies / f"{name}.ipynb"))
    write_atomic(path, json.dumps(outputs, indent=1, ensure_ascii=False) + "\n")
    return path


def compare(name: str, copies: Path = COPIES, references: Path = REFERENCES) -> list[Difference]:
    """Differences between a notebook's executed copy and its reference; empty when they agree.

    Raises:
        FileNotFoundError: no executed copy, or no reference; the message says how to make one.
    """
    path, copy = references / f"{name}.json", copies / f"{name}.ipynb"
    if not path.exists():
        raise FileNotFoundError(f"no reference for {name}: write it with mechanism.report.reference.update({name!r})")
    if not copy.exists():
        raise FileNotFoundError(f"no executed copy of {name}: run mechanism notebooks --only {name}")
    expected, found = json.loads(path.read_text("utf-8")), checked_outputs(read_notebook(copy))
    return [
        Difference(name, cell, expected.get(cell), found.get(cell))
        for cell in {**expected, **found}
        if cell not in expected or cell not in found or not same(expected[cell], found[cell])
    ]


def same(expected: str, found: str) -> bool:
    """Whether two texts agree: words exactly (white space aside), decimals to one unit in the last digit of the
    expected one, whole numbers exactly.

    >>> same("loss 1.234", "loss 1.235"), same("loss 1.234", "loss 1.236"), same("n = 12", "n = 13")
    (True, False, False)
    """
    if _skeleton(expected) != _skeleton(found):
        return False
    pairs = zip(_NUMBER.findall(expected), _NUMBER.findall(found), strict=True)
    return all(_close(left, right) for left, right in pairs)


def _skeleton(text: str) -> str:
    return re.sub(r"[\s─-]+", " ", _NUMBER.sub("#", text))


def _close(expected: str, found: str) -> bool:
    left, right = (Decimal(text.replace(",", "").replace("−", "-")) for text in (expected, found))
    exponent = left.as_tuple().exponent
    whole = "." not in expected and "e" not in expected.lower()
    return abs(left - right) <= (0 if whole else Decimal(1).scaleb(int(exponent)))
