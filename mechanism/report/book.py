"""The site and the PDF: Jupyter Book over executed notebooks, warnings as errors, nothing loaded from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import yaml

from .build import BuildError, own_results
from .files import BOOK, REPOSITORY, results_folder
from .stamp import recorded
from .trim import trim

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PDF = REPOSITORY / "build" / "mechanism.pdf"
_RUN = "from jupyter_book.cli.main import main; main()"
_STRICT = ("-W", "-n", "--keep-going", "-q")
_REMOTE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_CSS_REMOTE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)
_MESSAGE = re.compile(r"(WARNING|ERROR|CRITICAL|Error|Exception)\b")
# Attributes by which an element makes a browser fetch something; a link does so only with these relations.
_LOADS = {"src", "srcset", "poster", "data"}
_LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload"}
_PRINT = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
    "--no-pdf-header-footer",
)


@dataclass(frozen=True)
class Site:
    """A built site: its folder, its number of pages and its size in bytes."""

    folder: Path
    pages: int
    size: int

    def __str__(self) -> str:
        return f"{self.pages} pages, {self.size / 1e6:.1f} MB"


def build_book(force: bool = False, book: Path = BOOK, results: Path | None = None) -> Site:
    """Build the site from the executed notebooks.

    Args:
        force: read every page again.
        results: folder of the records that the claims page shows; by default that of the executed notebooks.

    Raises:
        BuildError: a page of the table of contents is missing, Jupyter Book warned about something, or a page loads
            something from elsewhere; the message names it.
    """
    _require_pages(book)
    _jupyter_book(["build", str(book), *_STRICT, *(["--all"] if force else [])], results or shown_results(book))
    site = book / "_build" / "html"
    trim(site)
    if found := [f"{path.relative_to(site)} loads {url}" for path, url in external_loads(site)]:
        raise BuildError("the site must stand alone, but:\n" + "\n".join(found))
    files = [path for path in site.rglob("*") if path.is_file()]
    pages = sum(path.suffix == ".html" for path in files)
    return Site(site, pages, sum(path.stat().st_size for path in files))


def build_pdf() -> Path:
    """Print the whole book to one PDF with Chromium.

    Raises:
        BuildError: no Chromium is installed, or the book or its print failed.
    """
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        raise BuildError(f"printing to PDF needs Chromium, and none of {', '.join(CHROMIUM)} is installed")
    _require_pages(BOOK)
    PDF.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mechanism-") as folder:
        out = Path(folder)
        arguments = ["build", str(BOOK), "--builder", "singlehtml", "--path-output", folder, *_STRICT]
        _jupyter_book(arguments, shown_results(BOOK))
        page = (out / "_build" / "singlehtml" / "index.html").as_uri()
        printed = out / "report.pdf"
        command = [browser, *_PRINT, f"--user-data-dir={out / 'profile'}", f"--print-to-pdf={printed}", page]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not printed.exists():
            raise BuildError(f"Chromium could not print the book:\n{_tail(done.stderr)}")
        shutil.move(printed, PDF)
    return PDF


def external_loads(site: Path) -> Iterator[tuple[Path, str]]:
    """Files of a site and the addresses elsewhere that they make a browser fetch: scripts, styles, images and fonts.
    Links that a reader may follow do not count."""
    for path in sorted(site.rglob("*.html")):
        parser = _Loads()
        parser.feed(path.read_text("utf-8"))
        yield from ((path, url) for url in parser.found)
    for path in sorted(site.rglob("*.css")):
        yield from ((path, url) for url in _CSS_REMOTE.findall(path.read_text("utf-8")))


class _Loads(HTMLParser):
    """Addresses elsewhere that a page makes a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._style = False

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        names = _LOADS if tag != "link" else {"href"} if _LOADING_LINKS & set(values.get("rel", "").split()) else set()
        self.found += [values[name] for name in sorted(names & set(values)) if _REMOTE.match(values[name])]
        self.found += _CSS_REMOTE.findall(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._style:
            self.found += _CSS_REMOTE.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self._style = False


def _require_pages(book: Path) -> None:
    toc = yaml.safe_load((book / "_toc.yml").read_text("utf-8"))
    names = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    missing = [name for name in names if not any((book / f"{name}{suffix}").exists() for suffix in (".ipynb", ".md"))]
    if missing:
        raise BuildError(f"no page for {', '.join(missing)}: execute the notebooks first (mechanism notebooks)")


def shown_results(book: Path = BOOK) -> Path:
    """Folder with the records of the executed notebooks: their own when they ran with parameters."""
    copies = book / "notebooks"
    own = any(recorded(copy).get("parameters") for copy in copies.glob("*.ipynb"))
    return own_results(copies) if own else results_folder()


def _jupyter_book(arguments: list[str], results: Path) -> None:
    command = [sys.executable, "-c", _RUN, *arguments]
    env = os.environ | {"MECHANISM_RESULTS": str(results)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if _MESSAGE.search(line)]
        told = "\n".join(lines) or _tail(done.stderr or done.stdout)
        raise BuildError(f"Jupyter Book failed:\n{told}")


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-12:])
