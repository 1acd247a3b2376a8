"""Files beside the pages: the card that links show, the page for wrong addresses, the stamps of what is shown, and
data that pages load.

`MECHANISM_BASE_URL`, the address that the site is published at, makes canonical links and addresses of the card
absolute; without it nothing in the site names a host.
"""

import html
import os
import re
import shutil
from pathlib import Path
from typing import Any

CARD = "_static/generated/card.png"
_CARD_ALT = "Mechanism: how do Mixture-of-Experts language models route? The claims of four sources by verdict."
_MISSING = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Page not found - Mechanism</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 18vh auto 0; padding: 0 1.2rem;
  background: Canvas; color: CanvasText; }}
</style>
</head>
<body>
<main>
<h1>There is no such page</h1>
<p>The address may be of an earlier edition. Everything in this report can be reached from its
<a href="{home}">front page</a>, which lists all claims.</p>
</main>
</body>
</html>
"""


def configure(app: Any, config: Any) -> None:
    base = os.environ.get("MECHANISM_BASE_URL", "").strip()
    base = f"{base.rstrip('/')}/" if base else ""
    config.html_baseurl = config.ogp_site_url = config.ogp_canonical_url = base
    config.ogp_social_cards, config.ogp_image, config.ogp_image_alt = {"enable": False}, CARD, _CARD_ALT
    config.ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image" />']


def relate_card(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Without a base address the card's is relative to the page. A page loads what it uses."""
    if not app.config.html_baseurl and context.get("metatags"):
        near = context["pathto"](CARD, resource=True)
        context["metatags"] = context["metatags"].replace(f'content="{CARD}"', f'content="{near}"')
    body = context.get("body", "")
    needs = {
        "mystnb": pagename.startswith("notebooks/"),
        "design-tabs": "sd-tab" in body,
        "togglebutton": re.search(r'class="([^"]* )?(toggle|dropdown)[ "]', body) is not None,
    }
    unused = tuple(name for name, needed in needs.items() if not needed)
    for kind in ("css_files", "script_files"):
        context[kind] = [one for one in context.get(kind, ()) if not any(name in str(one.filename) for name in unused)]


def write_files(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    from mechanism.report.hero import card
    from mechanism.report.published import write_stamps
    from mechanism.report.scoreboard import claim_rows, counts

    home = html.escape(app.config.html_baseurl or "/", quote=True)
    (Path(app.outdir) / "404.html").write_text(_MISSING.format(home=home), "utf-8")
    path, rows = Path(app.outdir) / CARD, claim_rows()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(card(counts(rows), len({row["id"][0] for row in rows})))
    write_stamps(Path(app.outdir), Path(app.srcdir) / "notebooks")
    for data in (Path(app.srcdir) / "notebooks").glob("*.js"):  # what pages load when they are opened
        (Path(app.outdir) / "notebooks").mkdir(exist_ok=True)
        shutil.copy(data, Path(app.outdir) / "notebooks" / data.name)


def setup(app: Any) -> dict[str, bool]:
    app.connect("config-inited", configure, priority=900)
    app.connect("html-page-context", relate_card, priority=900)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
