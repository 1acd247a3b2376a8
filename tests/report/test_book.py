"""The site build on a tiny book: warnings are errors, missing pages are named, nothing is loaded from elsewhere."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from nbformat.v4 import new_notebook

from mechanism.report.book import Site, build_book, shown_results
from mechanism.report.build import BuildError
from mechanism.report.files import BOOK
from mechanism.report.published import read_stamps


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """See `copied`."""
    return copied(tmp_path, monkeypatch)


def copied(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The report's own configuration with a single page."""
    folder = place / "book"
    folder.mkdir()
    monkeypatch.setenv("MECHANISM_RESULTS", str(place / "results"))
    for name in ("_ext", "_static", "vendor"):
        shutil.copytree(BOOK / name, folder / name)
    for name in ("_config.yml", "references.bib", "claims.md", "bibliography.md"):
        shutil.copy(BOOK / name, folder / name)
    directives = "".join(f"```{{{name}}}\n```\n\n" for name in ("hero", "scoreboard", "board", "citation", "timings"))
    (folder / "index.md").write_text(f"# Tiny\n\n{directives}[](method.md)\n\n```{{glossary}}\nterm\n  Text.\n```\n")
    (folder / "notebooks").mkdir()
    (folder / "method.md").write_text("# Method\n\nSee {cite:p}`lin1991divergence`.\n")
    chapters = [{"file": name} for name in ("claims", "method", "bibliography")]
    toc = {"format": "jb-book", "root": "index", "parts": [{"caption": "All", "chapters": chapters}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Iterator[Site]:
    """A book with a glossary, whose page `method` speaks of its terms and symbols, and a file of the notebooks'."""
    with pytest.MonkeyPatch.context() as patch:
        folder = copied(tmp_path_factory.mktemp("built"), patch)
        entries = "routing entropy\n  How evenly experts are used.\n\nexpert\n  A small network.\n"
        rows = "* - symbol\n  - page\n  - meaning\n* - $E$\n  - `method`\n  - number of experts\n"
        rows += "* - $\\tau$\n  - `method`\n  - a threshold\n* - $E$\n  - `other`\n  - something else\n"
        table = f"```{{list-table}}\n:header-rows: 1\n:class: symbols\n\n{rows}```\n"
        glossary = f"# Glossary\n\n```{{glossary}}\n{entries}```\n\n## Symbols\n\n{table}"
        (folder / "glossary.md").write_text(glossary)
        toc = yaml.safe_load((folder / "_toc.yml").read_text())
        toc["parts"][0]["chapters"].append({"file": "glossary"})
        (folder / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
        said = "# Routing entropy\n\n`routing entropy`, Routing entropy and routing entropy of an expert.\n"
        said += "Of $E$ experts, $E^2$ pairs.\n\n$$\n\\log E > \\tau\n$$\n\n$$\nEx = 1\n$$\n"
        (folder / "method.md").write_text(f"{said}\nSee {{cite:p}}`lin1991divergence`, and {{term}}`expert`.\n")
        (folder / "notebooks" / "data.js").write_text("DATA = 1;\n")
        yield build_book(book=folder)


def links(page: str) -> set[tuple[str, str, str]]:
    """Address, meaning and text of what a page explains where it stands."""
    found = re.findall(r'<a class="[^"]*\bterm\b[^"]*" href="([^"]*)" title="([^"]*)">(.*?)</a>', page)
    return {(href, title, re.sub("<.*?>", "", text)) for href, title, text in found}


def test_site_is_built_with_claims_and_without_source_maps(built: Site):
    assert (built.folder / "notebooks" / "data.js").read_text() == "DATA = 1;\n"
    text = (built.folder / "claims.html").read_text()
    assert text.count("verdict-undecided") == 45
    assert not list(built.folder.rglob("*.map"))
    assert not (built.folder / "_static" / "plotly.min.js").exists()
    assert "tex-svg.js" not in text
    assert str(built).endswith("MB")
    front = (built.folder / "index.html").read_text()
    assert front.count("verdict-undecided") == 45
    assert 'property="og:image" content="_static/generated/card.png"' in front
    assert "canonical" not in front
    assert "an executable research report" in front
    assert (built.folder / "_static" / "generated" / "card.png").exists()
    assert 'href="/"' in (built.folder / "404.html").read_text()
    assert read_stamps(built.folder)["notebooks"] == {}


def test_the_first_mention_of_a_term_has_its_definition(built: Site):
    page = (built.folder / "method.html").read_text()
    found = {own[1:] for own in links(page) if "#symbols" not in own[0]}
    assert found == {("How evenly experts are used.", "Routing entropy"), ("A small network.", "expert")}
    assert page.count("How evenly experts are used.") == 1


def test_symbols_have_the_meaning_that_they_have_on_the_page(built: Site):
    page = (built.folder / "method.html").read_text()
    found = [own for own in links(page) if "#symbols" in own[0]]
    assert found == [("glossary.html#symbols", "number of experts", r"\(E\)")]
    (legend,) = re.findall(r"<details><summary>symbols</summary>(.*?)</details>", page, re.DOTALL)
    said = " ".join(re.sub("<.*?>", "", legend).split())
    assert said == r"\(E\) number of experts; \(\tau\) a threshold"


def test_base_address_makes_links_of_the_card_absolute(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("site_files", BOOK / "_ext" / "site_files.py")
    assert spec is not None
    assert spec.loader is not None
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    for given, base in (("https://a.example/report", "https://a.example/report/"), (" ", "")):
        monkeypatch.setenv("MECHANISM_BASE_URL", given)
        config = SimpleNamespace()
        extension.configure(None, config)
        assert config.html_baseurl == config.ogp_site_url == base
    context = {"metatags": f'<meta content="{extension.CARD}" />', "pathto": lambda path, resource: f"../{path}"}
    extension.relate_card(SimpleNamespace(config=config), "notebooks/a", "page.html", context, None)
    assert context["metatags"] == f'<meta content="../{extension.CARD}" />'


def test_broken_references_stop_the_build_and_are_all_named(book: Path):
    (book / "method.md").write_text("# Method\n\n{cite:p}`nobody2000` and [](#nowhere)\n")
    with pytest.raises(BuildError) as caught:
        build_book(book=book)
    assert "nobody2000" in str(caught.value)
    assert "nowhere" in str(caught.value)
    assert "method.md" in str(caught.value)


def test_page_that_loads_from_elsewhere_is_named(book: Path):
    (book / "method.md").write_text("# Method\n\n<img src='https://a.example/i.png' alt='i'>\n")
    with pytest.raises(BuildError, match=r"method\.html loads https://a\.example/i\.png"):
        build_book(book=book)


def test_page_that_is_missing_is_named(book: Path):
    (book / "method.md").unlink()
    with pytest.raises(BuildError, match="no page for method: execute the notebooks first"):
        build_book(book=book)


def test_records_shown_are_those_of_the_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path / "results"))
    copies = tmp_path / "notebooks"
    copies.mkdir()
    noted = {"stamp": "s", "parameters": {}, "results": []}
    nbformat.write(new_notebook(metadata={"mechanism": noted}), copies / "a.ipynb")
    assert shown_results(tmp_path) == tmp_path / "results"
    nbformat.write(new_notebook(metadata={"mechanism": noted | {"parameters": {"seed": 1}}}), copies / "b.ipynb")
    assert shown_results(tmp_path) == copies / "results"
