"""A trimmed site keeps what its pages use and nothing else."""

from pathlib import Path

import pytest

from mechanism.report.trim import ICONS, keep_icons, trim, without_glyphs

SCRIPT = (
    'let a={bars:[448,512,["navicon"],"f0c9","M0 96"],"arrow-up":[384,512,[8593],"f062",["M1","M2"]],'
    'x:[1,2,[],"f0","M3"]};'
)
STYLE = '.fa-bars:before,.fa-navicon:before{content:"\\f0c9"}.fa-x:before{content:"\\f0"}.fa-bars{color:red}'
PAGE = """<html><head><meta name="viewport" content="a" /><meta name="viewport" content="b" />
<script>const THEBE_JS_URL = "https://a.example/x.js"; const y = ".cell"</script>
<link rel="stylesheet" type="text/css" href="_static/sphinx-thebe.css?v=4" />
<script async="async" src="_static/sphinx-thebe.js?v=1"></script>
<script>window.MathJax = {"options": {}}</script>
<script defer="defer" src="_static/tex-svg.js?v=5"></script>
<script src="_static/kept.js"></script></head><body><i class="fa-solid fa-bars"></i>%s</body></html>"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in (
        "_static/vendor/fontawesome/webfonts",
        "_static/scripts",
        "_static/styles",
        "_static/locales/de",
        "_images",
        "notebooks",
    ):
        (tmp_path / name).mkdir(parents=True)
    files = {
        "index.html": PAGE % '<img alt="b" src="_images/b.png"/>',
        "_images/a.png": "",
        "_images/b.png": "",
        "notebooks/a.html": PAGE % '<span class="math notranslate nohighlight">x</span>',
        "_static/kept.js": "",
        "_static/x.js.map": "",
        "_static/vendor/fontawesome/webfonts/fa-solid-900.woff2": "",
        "_static/locales/de/booktheme.mo": "",
        "_static/styles/theme.css": STYLE,
        ICONS.as_posix(): SCRIPT,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_pages_lose_what_they_do_not_use(site: Path):
    trim(site)
    index, page = (site / name for name in ("index.html", "notebooks/a.html"))
    assert "THEBE" not in index.read_text()
    assert "sphinx-thebe" not in index.read_text()
    assert "MathJax" not in index.read_text()
    assert "tex-svg" not in index.read_text()
    assert index.read_text().count("viewport") == 1
    assert "kept.js" in index.read_text()
    assert "window.MathJax" in page.read_text()
    assert "tex-svg.js" in page.read_text()


def test_files_that_nothing_uses_are_gone_and_icons_in_use_stay(site: Path):
    trim(site)
    assert not list(site.rglob("*.map"))
    assert not list(site.rglob("*.woff2"))
    assert not (site / "_static" / "locales").exists()
    assert "navicon" in (site / ICONS).read_text()
    assert "arrow-up" not in (site / ICONS).read_text()
    assert (site / "_static" / "styles" / "theme.css").read_text() == ".fa-bars{color:red}"


def test_images_of_earlier_builds_are_gone(site: Path):
    trim(site)
    assert [path.name for path in (site / "_images").iterdir()] == ["b.png"]


def test_trimming_twice_is_trimming_once(site: Path):
    trim(site)
    once = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    trim(site)
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == once


def test_icons_and_glyphs_by_name():
    assert keep_icons(SCRIPT, {"x"}) == 'let a={x:[1,2,[],"f0","M3"]};'
    assert keep_icons(SCRIPT, {"bars", "arrow-up", "x"}) == SCRIPT
    assert without_glyphs(STYLE) == ".fa-bars{color:red}"
