"""Notebook sources: parameterised, without outputs, and ready for the book."""

import re
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode

from mechanism.report.claims import load_claims
from mechanism.report.execute import declared_parameters
from mechanism.report.files import BOOK, COPIES, NOTEBOOKS, PACKAGE
from mechanism.report.normalise import tagged
from mechanism.report.stamp import read_notebook

COMMON = {"model", "device", "dtype", "languages", "max_segments", "seed", "data"}
SOURCES = sorted(NOTEBOOKS.glob("*.ipynb"))
# `figures.show(...)` and `plt.show()` put an image below a cell; `interactive(...)` takes its alternative text itself.
SHOWS = re.compile(r"\bshow\(")
# A chapter's claims, as its own judge has them or as they are recorded.
CLAIMS_TABLE = re.compile(r"```\{claims\} [A-Z]|judge\.table\(\)")
each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


def codes(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def extras(notebook: NotebookNode) -> set[str]:
    """Parameters beyond the common ones, as the notebook's metadata declares them."""
    return set(notebook.metadata.get("mechanism", {}).get("parameters", []))


def figure_problems(metadata: dict[str, Any]) -> list[str]:
    shown = metadata.get("mystnb", {})
    image, figure = shown.get("image", {}), shown.get("figure", {})
    given = {"image.alt": image.get("alt"), "figure.caption": figure.get("caption"), "figure.name": figure.get("name")}
    return [f"no mystnb.{key}" for key, text in given.items() if not text]


@each_source
def test_kernel_is_python3(path: Path):
    assert read_notebook(path).metadata.kernelspec.name == "python3"


@each_source
def test_exactly_one_parameters_cell(path: Path):
    assert len(tagged(read_notebook(path), "parameters")) == 1


@each_source
def test_no_outputs_and_no_counts(path: Path):
    for cell in codes(read_notebook(path)):
        assert not cell.outputs, cell.id
        assert cell.execution_count is None, cell.id


@each_source
def test_no_cell_ends_in_a_semicolon(path: Path):
    assert not [cell.id for cell in codes(read_notebook(path)) if cell.source.rstrip().endswith(";")]


@each_source
def test_figures_have_alternative_text_caption_and_name(path: Path):
    shown = [cell for cell in codes(read_notebook(path)) if SHOWS.search(cell.source)]
    problems = {cell.id: figure_problems(cell.metadata) for cell in shown}
    assert not {cell: found for cell, found in problems.items() if found}


@each_source
def test_figures_can_be_read_on_a_phone(path: Path):
    copy = COPIES / path.name
    if not copy.exists():
        pytest.skip("it has not been executed: make book")
    outputs = [(cell.id, own.get("metadata", {})) for cell in codes(read_notebook(copy)) for own in cell.outputs]
    sizes = {cell: metadata["smallest"] for cell, metadata in outputs if "smallest" in metadata}
    assert {cell: size for cell, size in sizes.items() if size < 9} == {}, "smallest letters, in pixels"


@each_source
def test_one_figure_a_cell(path: Path):
    assert not [cell.id for cell in codes(read_notebook(path)) if len(SHOWS.findall(cell.source)) > 1]


@each_source
def test_interactive_figures_have_alternative_text(path: Path):
    cells = [cell for cell in codes(read_notebook(path)) if re.search(r"\binteractive\(", cell.source)]
    assert not [cell.id for cell in cells if "alt=" not in cell.source]


@each_source
def test_parameters_are_common_or_declared(path: Path):
    unknown = set(declared_parameters(path)) - COMMON - extras(read_notebook(path))
    assert not unknown, "declare extra parameters in the notebook's metadata: mechanism.parameters"


@each_source
def test_parameters_say_what_they_are(path: Path):
    silent = [name for name, about in declared_parameters(path).items() if not about["help"].strip()]
    assert not silent, "write a comment after each parameter"


@each_source
def test_it_ends_with_its_provenance(path: Path):
    assert any("provenance(" in cell.source for cell in codes(read_notebook(path)))


def page(path: Path) -> dict[str, Any]:
    """What the metadata say of a page: extra `parameters`, its `chapter`, and `about`, why it is run for no other."""
    return read_notebook(path).metadata["mechanism"]


@each_source
def test_it_has_its_chapter_or_is_about_the_report(path: Path):
    chapter = page(path).get("chapter")
    judged = {claim.source.chapter for claim in load_claims().values() if claim.notebook == path.stem}
    assert judged <= {chapter}, f"{path.stem} judges claims of {judged}: name the chapter in its metadata"
    assert chapter is None or (PACKAGE / "study" / chapter / "claims.py").exists(), f"{path.stem}: no study/{chapter}"


def test_claims_are_judged_by_notebooks_that_are_there():
    assert {claim.notebook for claim in load_claims().values()} <= {path.stem for path in SOURCES}


@pytest.mark.parametrize("path", [path for path in SOURCES if page(path).get("chapter")], ids=lambda path: path.stem)
def test_chapters_end_with_their_claims(path: Path):
    cells = read_notebook(path).cells
    tables = [i for i, cell in enumerate(cells) if CLAIMS_TABLE.search(cell.source)]
    assert tables
    assert max(tables) >= 0.75 * len(cells)


@each_source
def test_no_page_reads_records_while_it_is_made(path: Path):
    assert not [cell.id for cell in codes(read_notebook(path)) if "claim_rows" in cell.source], (
        "it would see its own records only; use the directives {claims}, {board} or {scoreboard}"
    )


def test_the_overview_names_every_page():
    overview, *pages = SOURCES
    prose = "".join(cell.source for cell in read_notebook(overview).cells)
    assert not [path.name for path in pages if f"[]({path.name})" not in prose]


@each_source
def test_cell_ids_are_stable_and_unique(path: Path):
    ids = [cell.get("id") for cell in read_notebook(path).cells]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@each_source
def test_book_has_a_page_for_it(path: Path):
    assert f"file: notebooks/{path.stem}\n" in (BOOK / "_toc.yml").read_text("utf-8")


def test_figure_problems_are_found():
    complete = {"mystnb": {"image": {"alt": "a"}, "figure": {"caption": "c", "name": "fig-n"}}}
    assert figure_problems(complete) == []
    assert figure_problems({}) == ["no mystnb.image.alt", "no mystnb.figure.caption", "no mystnb.figure.name"]


def test_no_two_figures_have_one_name():
    figures = [
        cell.metadata["mystnb"]["figure"]["name"]
        for path in SOURCES
        for cell in codes(read_notebook(path))
        if "name" in cell.metadata.get("mystnb", {}).get("figure", {})
    ]
    assert len(figures) == len(set(figures))
