"""The token explorer: its data beside a page, the page that shows them, and the links that lead into it."""

import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..study.base.token_routes import LEVELS, token_routes
from .figures import language_label, order_languages
from .files import PACKAGE, write_atomic
from .provenance import Provenance
from .record import running_notebook

PAGE = "04_token_explorer"
"""Notebook that shows the explorer; its data stand beside it."""
STANDALONE = "explorer.html"
LIMIT = 3_000_000
"""Bytes of the data: with more, sentences are left out."""
_VARIABLE = "MECHANISM_EXPLORER"
_HERE = PACKAGE / "report"
_ON_PAPER = "The explorer needs the site: it is drawn by a script."
_ALONE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 1rem auto; max-width: 70rem; padding: 0 1rem; font-family: system-ui, sans-serif; background: #fff; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #14181e; color: #e3e8ee; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Explorer:
    """What a page shows.

    Attributes:
        data: file beside the page; record: its content; size: in bytes.
    """

    data: str
    record: Mapping[str, Any]
    size: int

    @property
    def counts(self) -> dict[str, int]:
        """How many `languages`, `sentences` and tokens there are, `read` and `generated`."""
        every = [one for own in self.record["texts"].values() for one in own if one]
        read = sum(one["n"] for one in every)
        made = sum(len(one["t"]) for one in every) - read
        of_text = {"languages": len(self.record["texts"]), "sentences": len(self.record["titles"])}
        return of_text | {"read": read, "generated": made}

    @property
    def first_weight(self) -> float:
        """Gate weight of the expert with most, mean over layers and tokens that are read."""
        slots, layers = self.record["slots"], len(self.record["layers"])
        every = [one for own in self.record["texts"].values() for one in own if one]
        best = [np.reshape(one["w"], (-1, layers, slots))[: one["n"]].max(2).ravel() for one in every]
        return float(np.concatenate(best).mean() * self.record["scale"] / LEVELS)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": explorer_html(self.data), "text/plain": f"<token explorer of {self.data}>"}


def explorer(model: Any, tokenizer: Any, corpus: Any, origin: Provenance, limit: int = LIMIT, **asked: Any) -> Explorer:
    """Route sentences through a model and write them for the page that runs; the build carries the file on.

    Args:
        model, tokenizer, corpus, asked: of `token_routes`, which says what it raises.
        origin: provenance, which goes into the data.
        limit: bytes; sentences beyond it are left out, the last first, but for one, and the page says so.
    """
    record = token_routes(model, tokenizer, corpus, **asked)
    codes = order_languages(record["texts"])
    record["texts"] = {code: record["texts"][code] for code in codes}
    record |= {"names": {code: language_label(code) for code in codes}, "provenance": dict(origin.content)}
    record["routed"] = kept = len(record["titles"])
    while (size := len((text := _script(record)).encode())) > limit and kept > 1:
        kept = max(1, min(kept - 1, kept * limit // size))
        record["titles"] = record["titles"][:kept]
        record["texts"] = {code: own[:kept] for code, own in record["texts"].items()}
    name = f"{running_notebook()}.js"
    write_atomic(Path(os.environ.get("MECHANISM_RESULTS") or Path.cwd()) / name, text)
    return Explorer(name, record, size)


def read_data(path: Path) -> dict[str, Any]:
    """The record in a file of data."""
    return json.loads(path.read_text("utf-8").partition("=")[2].rstrip().removesuffix(";"))


def _script(record: Mapping[str, Any]) -> str:
    """A script, not JSON: a page opened from disk may not read a file, but may run one."""
    return f"{_VARIABLE} = {json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(',', ':'))};\n"


def explorer_html(data: str) -> str:
    """The explorer as a part of a page; `data` is the address of its data."""
    style, script = ((_HERE / f"explorer.{kind}").read_text("utf-8") for kind in ("css", "js"))
    return (
        f'<section class="explorer" aria-label="Token explorer" data-src="{html.escape(data, quote=True)}">'
        f'<p>The sentences are being loaded.</p></section>\n<p class="on-paper">{_ON_PAPER}</p>\n'
        f"<noscript><p>{_ON_PAPER}</p></noscript>\n<style>\n{style}</style>\n<script>\n{script}</script>\n"
    )


def with_explorer(page: str, folder: Path, pages: str) -> str:
    """The page of a run, below its title a link to the explorer, which is written as a page of its own; the page as it
    is where the run has no data for it.

    Args:
        folder: of the run; pages: its folder of executed notebooks.
    """
    data = Path(pages) / f"{PAGE}.js"
    if not (folder / data).exists():
        return page
    title = html.escape(f"Token explorer: {read_data(folder / data)['provenance'].get('model', folder.name)}")
    write_atomic(folder / STANDALONE, _ALONE.format(title=title, body=explorer_html(data.as_posix())))
    link = f'<p><a href="{STANDALONE}">Token explorer</a>: the experts of every token, sentence by sentence.</p>'
    return page.replace("</h1>", f"</h1>\n{link}", 1)


def map_script(group: str) -> str:
    """What makes the cells of an interactive map of experts lead to the explorer, on pages of the book; `{plot_id}` is
    filled in by plotly. A click goes there; a tap, which also shows what is behind the cell, aims the link below.

    Args:
        group: what the map shows one of at a time; a language is chosen in the explorer.
    """
    language = "&lang=${encodeURIComponent(point.data.name)}" if group == "language" else ""
    return (
        "const plot = document.getElementById('{plot_id}');\n"
        "if (plot.closest('.bd-article')) {\n"
        "  const note = document.createElement('p'), link = document.createElement('a');\n"
        f"  link.href = '{PAGE}.html';\n"
        "  link.textContent = 'token explorer';\n"
        "  note.append('Click a cell to follow its expert in the ', link, '.');\n"
        "  plot.after(note);\n"
        "  let touched = false;\n"
        "  plot.addEventListener('pointerdown', (event) => { touched = event.pointerType === 'touch'; }, true);\n"
        "  plot.on('plotly_click', ({ points: [point] }) => {\n"
        f"    link.href = `{PAGE}.html#layer=${{point.y}}&expert=${{point.x}}{language}`;\n"
        "    link.textContent = `token explorer: expert ${point.x} of layer ${point.y}`;\n"
        "    if (!touched) location.href = link.href;\n"
        "  });\n"
        "}"
    )
