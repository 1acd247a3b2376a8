"""A built site without what no page of it uses: icons, maps, translations, and scripts of features that are off."""

import re
import shutil
from pathlib import Path

ICONS = Path("_static") / "scripts" / "fontawesome.js"
# An icon in the script: its name, width, height, other names, code point, and outline.
_ICON = re.compile(r'("?)([a-z0-9][a-z0-9-]*)\1:\[\d+,\d+,\[[^\]]*\],"\w*",(?:"[^"]*"|\[[^\]]*\])\],?')
# The rules by which a font would draw icons: names, and the character of the font.
_GLYPH = re.compile(r'((?:\.fa-[a-z0-9-]+:before,?)+)\{content:"[^"]*"\}')
_NAMED = re.compile(r"\bfa-([a-z0-9-]+)")
_THEBE = re.compile(
    r"\s*<script[^>]*>const THEBE_JS_URL[^<]*</script>|\s*<script[^>]*sphinx-thebe\.js[^>]*></script>"
    r"|\s*<link[^>]*sphinx-thebe\.css[^>]*/>"
)
_MATHJAX = re.compile(r"\s*<script>window\.MathJax[^<]*</script>|\s*<script[^>]*tex-svg\.js[^>]*></script>")
_VIEWPORT = re.compile(r'(<meta name="viewport"[^>]*/>)(?=<meta name="viewport")')
_UNUSED = ("*.map", "_static/sphinx-thebe.*", "_static/vendor/fontawesome/webfonts/*", "_static/*.html")


def trim(site: Path) -> None:
    """Take out of a built site what its pages do not use; doing it twice is the same as once. Icons are drawn by a
    script, so that no font of them is ever asked for."""
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    for page in pages:
        _trim_page(page)
    for pattern in _UNUSED:
        for path in site.glob(f"**/{pattern}"):
            path.unlink()
    shutil.rmtree(site / "_static" / "locales", ignore_errors=True)
    _drop_images(site, "".join(page.read_text("utf-8") for page in pages))
    if (site / ICONS).exists():
        used = set(_NAMED.findall("".join(page.read_text("utf-8") for page in pages)))
        scripts = [path for path in (site / "_static").rglob("*.js") if path.name != ICONS.name]
        used |= set(_NAMED.findall("".join(path.read_text("utf-8") for path in scripts)))
        (site / ICONS).write_text(keep_icons((site / ICONS).read_text("utf-8"), used), "utf-8")
        for path in (site / "_static" / "styles").glob("*.css"):
            path.write_text(without_glyphs(path.read_text("utf-8")), "utf-8")


def _drop_images(site: Path, text: str) -> None:
    """Take out images that no page names: Sphinx leaves those of earlier builds."""
    for path in (site / "_images").glob("**/*.*"):
        if path.name not in text:
            path.unlink()


def keep_icons(script: str, names: set[str]) -> str:
    """Font Awesome's script with these icons alone."""
    return _ICON.sub(lambda found: found[0] if found[2] in names else "", script)


def without_glyphs(style: str) -> str:
    """A style sheet without the rules that would fetch a font for icons which the script draws anyway."""
    return _GLYPH.sub("", style)


def _trim_page(page: Path) -> None:
    text = page.read_text("utf-8")
    trimmed = _VIEWPORT.sub("", _THEBE.sub("", text))
    # Entries of a list have to be items of it; the role that docutils gives them is none.
    trimmed = trimmed.replace('role="doc-biblioentry"', 'role="listitem"')
    if 'class="math' not in text and "math notranslate" not in text:
        trimmed = _MATHJAX.sub("", trimmed)
    if trimmed != text:
        page.write_text(trimmed, "utf-8")
