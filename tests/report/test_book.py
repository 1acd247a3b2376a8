"""The site build on a tiny book: warnings are errors, missing pages are named, nothing is loaded from elsewhere."""

import importlib.util
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from nbformat.v4 import new_notebook

from mechanism.report.book import build_book, shown_results
from mechanism.report.build import BuildError
from mechanism.report.files import BOOK
from mechanism.report.published import read_stamps


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The report's own configuration with a single page."""
    folder = tmp_path / "book"
    folder.mkdir()
    monkeypatch.setenv("MECHANISM_RESULTS", str(tmp_path / "results"))
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


def test_site_is_built_with_claims_and_without_source_maps(book: Path):
    (book / "notebooks" / "data.js").write_text("DATA = 1;\n")
    site = build_book(book=book)
    assert (site.folder / "notebooks" / "data.js").read_text() == "DATA = 1;\n"
    text = (site.folder / "claims.html").read_text()
    assert text.count("verdict-undecided") == 45
    assert not list(site.folder.rglob("*.map"))
    assert not (site.folder / "_static" / "plotly.min.js").exists()
    assert "tex-svg.js" not in text
    assert str(site).endswith("MB")
    front = (site.folder / "index.html").read_text()
    assert front.count("verdict-undecided") == 45
    assert 'property="og:image" content="_static/generated/card.png"' in front
    assert "canonical" not in front
    assert "an executable research report" in front
    assert (site.folder / "_static" / "generated" / "card.png").exists()
    assert 'href="/"' in (site.folder / "404.html").read_text()
    assert read_stamps(site.folder)["notebooks"] == {}


def test_the_first_mention_of_a_term_has_its_definition(book: Path):
    entries = "routing entropy\n  How evenly experts are used.\n\nexpert\n  A small network.\n"
    (book / "glossary.md").write_text(f"# Glossary\n\n```{{glossary}}\n{entries}```\n")
    toc = yaml.safe_load((book / "_toc.yml").read_text())
    toc["parts"][0]["chapters"].append({"file": "glossary"})
    (book / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    said = "# Routing entropy\n\n`routing entropy`, Routing entropy and routing entropy of an expert.\n"
    (book / "method.md").write_text(f"{said}\nSee {{cite:p}}`lin1991divergence`, and {{term}}`expert`.\n")
    page = (build_book(book=book).folder / "method.html").read_text()
    links = re.findall(r'<a class="([^"]*)" href="([^"]*)" title="([^"]*)">(.*?)</a>', page)
    found = {(title, re.sub("<.*?>", "", text)) for kind, href, title, text in links if "term" in kind.split()}
    assert found == {("How evenly experts are used.", "Routing entropy"), ("A small network.", "expert")}
    assert page.count("How evenly experts are used.") == 1


def test_symbols_have_the_meaning_that_they_have_on_the_page(book: Path):
    rows = "* - symbol\n  - page\n  - meaning\n* - $E$\n  - `method`\n  - number of experts\n"
    rows += "* - $\\tau$\n  - `method`\n  - a threshold\n* - $E$\n  - `other`\n  - something else\n"
    table = f"```{{list-table}}\n:header-rows: 1\n:class: symbols\n\n{rows}```\n"
    (book / "glossary.md").write_text(f"# Glossary\n\n## Symbols\n\n{table}")
    toc = yaml.safe_load((book / "_toc.yml").read_text())
    toc["parts"][0]["chapters"].append({"file": "glossary"})
    (book / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (book / "method.md").write_text(
        "# Method\n\nOf $E$ experts, $E^2$ pairs.\n\n$$\n\\log E > \\tau\n$$\n\n$$\nEx = 1\n$$\n"
    )
    page = (build_book(book=book).folder / "method.html").read_text()
    links = re.findall(r'<a class="[^"]*term[^"]*" href="([^"]*)" title="([^"]*)">(.*?)</a>', page)
    assert [(href, title, re.sub("<.*?>", "", text)) for href, title, text in links] == [
        ("glossary.html#symbols", "number of experts", r"\(E\)")
    ]
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
