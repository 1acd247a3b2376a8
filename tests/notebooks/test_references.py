"""Executed notebooks print what their references say, and a changed number is caught."""

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook, new_output

from mechanism.report.build import build_notebooks, stale
from mechanism.report.files import COPIES, NOTEBOOKS
from mechanism.report.normalise import tagged
from mechanism.report.reference import REFERENCES, TAG, compare, same, update
from mechanism.report.stamp import read_notebook

CHECKED = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")) if tagged(read_notebook(path), TAG)]
TABLE = "language  loss\nSwahili   1.234\nGerman    0.980\nn = 12,345"
KERNEL = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}


@pytest.mark.parametrize("name", CHECKED)
def test_notebook_prints_its_reference(name: str, tmp_path: Path):
    copies = COPIES
    if stale((name,)):
        copies = tmp_path / "copies"
        build_notebooks((name,), output=copies, results=tmp_path / "results", progress=False)
    assert not compare(name, copies), f"if the change is meant: mechanism.report.reference.update({name!r})"


def test_every_reference_belongs_to_a_notebook():
    assert {path.stem for path in REFERENCES.glob("*.json")} == set(CHECKED)


def executed(folder: Path, text: str, tags: tuple[str, ...] = (TAG,)) -> Path:
    folder.mkdir(exist_ok=True)
    cell = new_code_cell("print(...)", id="loss-table", metadata={"tags": list(tags)})
    cell.outputs = [new_output("stream", name="stdout", text=text)]
    nbformat.write(new_notebook(cells=[cell], metadata=KERNEL), folder / "nb.ipynb")
    return folder


def test_a_deliberately_changed_number_makes_the_check_fail(tmp_path: Path):
    copies = executed(tmp_path / "copies", TABLE)
    update("nb", copies, tmp_path)
    assert compare("nb", copies, tmp_path) == []
    reference = json.loads((tmp_path / "nb.json").read_text())
    assert reference == {"loss-table": TABLE}
    reference["loss-table"] = TABLE.replace("1.234", "1.254")
    (tmp_path / "nb.json").write_text(json.dumps(reference))
    (difference,) = compare("nb", copies, tmp_path)
    assert str(difference).startswith("nb, cell loss-table: expected ")


def test_a_notebook_whose_number_changed_is_caught_by_execution(tmp_path: Path):
    cell = new_code_cell("print('loss', round(1 / 3, 3))", id="loss", metadata={"tags": [TAG]})
    (tmp_path / "notebooks").mkdir()
    where: dict[str, Any] = {
        "output": tmp_path / "copies",
        "sources": tmp_path / "notebooks",
        "results": tmp_path / "results",
    }
    nbformat.write(new_notebook(cells=[cell], metadata=KERNEL), tmp_path / "notebooks" / "nb.ipynb")
    build_notebooks(inputs=(), progress=False, **where)
    update("nb", tmp_path / "copies", tmp_path)
    assert compare("nb", tmp_path / "copies", tmp_path) == []
    cell.source = "print('loss', round(1 / 2.9, 3))"
    nbformat.write(new_notebook(cells=[cell], metadata=KERNEL), tmp_path / "notebooks" / "nb.ipynb")
    build_notebooks(inputs=(), progress=False, **where)
    (difference,) = compare("nb", tmp_path / "copies", tmp_path)
    assert (difference.expected, difference.found) == ("loss 0.333", "loss 0.345")


def test_stripped_notebook_is_an_error_not_a_pass(tmp_path: Path):
    update("nb", executed(tmp_path / "copies", TABLE), tmp_path)
    executed(tmp_path / "copies", "")
    with pytest.raises(ValueError, match="has no text output"):
        compare("nb", tmp_path / "copies", tmp_path)


def test_cell_that_is_gone_or_no_longer_tagged_is_a_difference(tmp_path: Path):
    update("nb", executed(tmp_path / "copies", TABLE), tmp_path)
    (difference,) = compare("nb", executed(tmp_path / "copies", TABLE, tags=()), tmp_path)
    assert difference.found is None


def test_missing_reference_and_copy_say_how_to_make_them(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no reference for nb"):
        compare("nb", tmp_path, tmp_path)
    (tmp_path / "nb.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="no executed copy of nb"):
        compare("nb", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("expected", "found", "agree"),
    [
        ("loss 1.234", "loss 1.235", True),
        ("loss 1.234", "loss 1.236", False),
        ("loss 1.234", "loss  1.234", True),
        ("loss 1.234", "cost 1.234", False),
        ("loss 1.234", "loss -1.234", False),
        ("n 12,345", "n 12,345", True),
        ("n 12,345", "n 12,346", False),
        ("p 1.2e-05", "p 1.3e-05", True),
        ("p 1.2e-05", "p 1.2e-04", False),
        ("rate 12.5 %", "rate 12.6 %", True),
        ("rate 12.5 %", "rate 12.7 %", False),
        ("a 1 b 2", "a 1", False),
        ("share nan", "share 0.1", False),
    ],
)
def test_tolerance_is_one_unit_of_the_last_digit(expected: str, found: str, agree: bool):
    assert same(expected, found) is agree


@given(value=st.floats(-1e4, 1e4), digits=st.integers(1, 6))
def test_noise_below_the_last_digit_passes_and_above_it_fails(value: float, digits: int):
    step = 10.0**-digits
    assert same(f"{value:.{digits}f}", f"{value + 0.4 * step:.{digits}f}")
    assert not same(f"{value:.{digits}f}", f"{value + 2.6 * step:.{digits}f}")
