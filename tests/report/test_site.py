"""The built site: nothing is loaded from elsewhere, and in a browser it fits a phone and goes dark."""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from mechanism.report.book import build_pdf, external_loads
from mechanism.report.build import BuildError
from mechanism.report.files import BOOK

SITE = BOOK / "_build" / "html"
PAGES = sorted(SITE.rglob("*.html")) if SITE.is_dir() else []
# Pages that readers open; the theme also leaves fragments below _static.
READ = [page for page in PAGES if "_static" not in page.parts and page.name not in {"genindex.html", "search.html"}]
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)
DARK = ("index.html", "10_routing_by_language.html", "trace.html")
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
# What a page loads only when it is scrolled to has to be there as well.
IMAGES = """
const done = arguments[0], all = [...document.querySelectorAll('.bd-article img')];
all.forEach((image) => { image.loading = 'eager'; });
Promise.allSettled(all.map((image) => image.decode())).then(() => done(all.map((i) => [i.src, i.alt, i.naturalWidth])));
"""
CUT = """
const done = arguments[0], scrolling = (box) => ['auto', 'scroll'].includes(getComputedStyle(box).overflowX);
const wide = (box) => box.clientWidth > 0 && box.scrollWidth > box.clientWidth + 1 && scrolling(box);
const counts = (box) => box.matches('mjx-container')
  || (box.querySelector('table') && !box.querySelector('.cell_output'));
const found = () => [...document.querySelectorAll('.bd-article *')]
  .filter((box) => wide(box) && counts(box) && !box.closest('.scrolls'))
  .map((box) => `${box.className}: ${box.textContent.slice(0, 40)}`);
requestAnimationFrame(() => requestAnimationFrame(() => done(found())));
"""
DRAWN = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
# axe looks at every element: of long code, the beginning of each block has all that the rest has.
SHORTENED = """
document.querySelectorAll('pre').forEach((code) =>
  [...code.querySelectorAll('span')].slice(30).forEach((word) => word.remove()));
"""
# Contrast is most of what axe computes: it looks at two texts of each place, told by the tags, classes and styles of
# what they stand in, and by the stripes of a table.
PLACES = """
const seen = {}, marks = (box) => [box.tagName, box.className.baseVal ?? box.className, box.getAttribute('style')];
const place = (box) => box === document.documentElement ? ''
  : `${place(box.parentElement)}>${marks(box)}` + (box.tagName === 'TR' ? box.rowIndex % 2 : '');
for (const box of document.body.querySelectorAll('*')) {
  if (![...box.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue;
  const own = place(box);
  seen[own] = (seen[own] ?? 0) + 1;
  if (seen[own] <= 2) box.setAttribute('data-text', '');
}
axe.configure({rules: [{id: 'color-contrast', selector: '[data-text]'}]});
"""
needs_site = pytest.mark.skipif(not READ, reason="the site has not been built: make book")
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver on this machine")
each_page = pytest.mark.parametrize("page", READ, ids=lambda page: page.relative_to(SITE).as_posix())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = opened()
    yield driver
    driver.quit()


def opened() -> Any:
    """A browser of its own."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for flag in FLAGS:
        options.add_argument(flag)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)
    return driver


@dataclass(frozen=True)
class Look:
    """What a browser saw of a page: addresses requested, complaints of the console, images without a description or
    without pixels, serious findings of axe by colour scheme, the width that a phone needs, tables and equations that go
    on beyond its edge without showing it, and the brightness of the background, 0 to 255, by colour scheme."""

    requested: list[str]
    complaints: list[str]
    images: list[str]
    axe: dict[str, dict[str, list[str]]]
    phone: int
    cut: list[str]
    brightness: dict[str, float]


@pytest.fixture(scope="module")
def looks() -> dict[Path, Look]:
    """Every page, each loaded once; two browsers share them."""
    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(look_at, (READ[::2], READ[1::2]))
        return {page: own for half in halves for page, own in half.items()}


def look_at(pages: list[Path]) -> dict[Path, Look]:
    driver = opened()
    try:
        return {page: look(driver, page) for page in pages}
    finally:
        driver.quit()


def look(driver: Any, page: Path) -> Look:
    colour_scheme(driver, "light")
    requested(driver)
    driver.get(page.as_uri())
    urls = requested(driver)
    images = driver.execute_async_script(IMAGES)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    width = driver.execute_script("return document.documentElement.scrollWidth")
    cut = driver.execute_async_script(CUT)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    bright = {"light": brightness(driver)}
    serious = {"light": axe_findings(driver)}
    colour_scheme(driver, "dark")  # as a reader's system does at nightfall, on an open page
    if page.name in DARK:
        driver.get(page.as_uri())
        serious["dark"] = axe_findings(driver)
    bright["dark"] = brightness(driver)
    complaints = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    bare = [source for source, alt, pixels in images if not alt.strip() or not pixels]
    return Look(urls, complaints, bare, serious, width, cut, bright)


def axe_findings(driver: Any) -> dict[str, list[str]]:
    """Serious and critical findings by rule, with some of the elements."""
    axe = pytest.importorskip("axe_core_python.selenium").Axe()
    driver.execute_script(SHORTENED)
    driver.execute_script(axe.axe_script + PLACES)
    found = driver.execute_async_script("axe.run({resultTypes: ['violations']}).then(arguments[0])")["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    return {v["id"]: [node["html"][:120] for node in v["nodes"]][:3] for v in grave}


def colour_scheme(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.execute_async_script(DRAWN)


def brightness(browser: Any) -> float:
    """Mean of the page background's red, green and blue, 0 to 255."""
    colour = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(map(float, colour.split("(")[1].rstrip(")").split(",")[:3])) / 3


def requested(browser: Any) -> list[str]:
    """Addresses requested since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@needs_site
def test_files_load_nothing_from_elsewhere():
    assert list(external_loads(SITE)) == []


@needs_site
def test_no_source_maps_and_a_modest_size():
    files = [path for path in SITE.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".map"]
    assert sum(path.stat().st_size for path in files) <= 27e6


@needs_site
@needs_browser
@each_page
def test_page_opens_from_disk_without_requests_elsewhere(page: Path, looks: dict[Path, Look]):
    urls = looks[page].requested
    assert page.as_uri() in urls
    assert [url for url in urls if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert looks[page].complaints == []


@needs_site
@needs_browser
@each_page
def test_page_can_be_used_and_read_by_everyone(page: Path, looks: dict[Path, Look]):
    seen = looks[page]
    assert {scheme: found for scheme, found in seen.axe.items() if found} == {}
    assert seen.phone <= PHONE["width"]
    assert seen.cut == []
    assert seen.brightness["dark"] < 60 < 200 < seen.brightness["light"]
    assert seen.images == []


@needs_site
@needs_browser
def test_front_page_is_light(browser: Any):
    requested(browser)
    browser.get((SITE / "index.html").as_uri())
    browser.execute_script("return document.readyState")
    paths = {unquote(urlsplit(url).path) for url in requested(browser) if url.startswith("file:")}
    assert sum(Path(path).stat().st_size for path in paths) <= 1e6


@needs_site
@needs_browser
def test_board_is_filtered_and_sorted(browser: Any):
    browser.get((SITE / "index.html").as_uri())
    shown = (
        "return [...document.querySelectorAll('.board tbody tr:not([hidden])')].map(r => r.cells[0].textContent.trim())"
    )
    everything = browser.execute_script(shown)
    assert len(everything) == len(set(everything)) == 45
    browser.execute_script(
        "const s = document.querySelector('.board select'); s.value = 'M'; s.dispatchEvent(new Event('change'))"
    )
    assert browser.execute_script(shown) == [f"M{i}" for i in range(1, 9)]
    assert browser.execute_script("return document.querySelector('.board output').value") == "8 of 45 claims"
    for order in ([f"M{i}" for i in range(1, 9)], [f"M{i}" for i in range(8, 0, -1)]):
        browser.execute_script("document.querySelector('.board th button').click()")
        assert browser.execute_script(shown) == order


@needs_site
def test_verdicts_link_to_the_cells_that_gave_them():
    links = re.findall(r'<a class="verdict [^"]*" href="([^"#]*)#([^"]+)"', (SITE / "index.html").read_text("utf-8"))
    assert links
    missing = [(page, place) for page, place in links if f'id="{place}"' not in (SITE / page).read_text("utf-8")]
    assert missing == []


@needs_site
def test_every_page_has_a_card_that_is_there():
    for page in READ:
        if page.name != "404.html":
            (card,) = re.findall(r'property="og:image" content="([^"]+)"', page.read_text("utf-8"))
            assert "://" in card or (page.parent / card).resolve().exists()


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', ["//cdn.example/x.css"]),
        ('<link rel="shortcut icon" href="http://a.example/i.png">', ["http://a.example/i.png"]),
        ('<img src="https://a.example/i.png">', ["https://a.example/i.png"]),
        ('<p style="background: url(https://a.example/b.png)">', ["https://a.example/b.png"]),
        ("<style>@import 'https://a.example/f.css';</style>", ["https://a.example/f.css"]),
        ('<a href="https://a.example">a</a><link rel="canonical" href="https://a.example/">', []),
        ('<meta property="og:image" content="https://a.example/i.png"><img src="local.png">', []),
        ('<script src="_static/x.js">const later = "https://a.example"</script>', []),
    ],
)
def test_external_loads_are_found(tmp_path: Path, html: str, found: list[str]):
    (tmp_path / "page.html").write_text(html)
    assert [url for _, url in external_loads(tmp_path)] == found


def test_external_fonts_in_styles_are_found(tmp_path: Path):
    (tmp_path / "x.css").write_text("@font-face { src: url('https://fonts.example/f.woff2') } a { x: url(local.png) }")
    assert [url for _, url in external_loads(tmp_path)] == ["https://fonts.example/f.woff2"]


def test_pdf_without_a_browser_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match=r"printing to PDF needs Chromium, and none of .* is installed"):
        build_pdf()
