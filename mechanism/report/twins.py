"""The figures and tables of the sources beside those of this report."""

from pathlib import Path
from typing import Any

import yaml

from .claims import load_sources
from .files import NOTEBOOKS, TWINS
from .findings import sections
from .stamp import read_notebook
from .tables import markdown_table


def twins_markdown(path: Path = TWINS) -> str:
    """A table for each source: its figure or table, what it shows, and where this report has the same, or why not.

    Raises:
        ValueError: an entry with neither or both, a figure or a heading that no notebook has, or an unknown source.
    """
    entries, sources = yaml.safe_load(path.read_text("utf-8")), load_sources()
    if unknown := sorted(set(entries) ^ set(sources)):
        raise ValueError(f"{path.name}: {', '.join(unknown)} is no source, or has no entry")
    pages, parts = labels(), []
    for letter, own in entries.items():
        rows = [(one["name"], one["shows"], _told(one, pages)) for one in own]
        parts += [
            f"## {letter}: {sources[letter].title}",
            "",
            markdown_table(("in the source", "what it shows", "here"), rows),
            "",
        ]
    return "\n".join(parts)


def labels() -> dict[str, str]:
    """The figures of all notebooks: label -> notebook."""
    return {
        name: path.stem
        for path in sorted(NOTEBOOKS.glob("*.ipynb"))
        for cell in read_notebook(path).cells
        if (name := cell.metadata.get("mystnb", {}).get("figure", {}).get("name"))
    }


def _told(entry: dict[str, Any], pages: dict[str, str]) -> str:
    if ("twin" in entry) == ("reason" in entry):
        raise ValueError(f"{entry['name']}: give a twin, or a reason why there is none")
    return entry["reason"] if "reason" in entry else "; ".join(_place(one, pages) for one in entry["twin"])


def _place(twin: str | dict[str, str], pages: dict[str, str]) -> str:
    """A link to a figure, or to a page with the heading beneath which a table stands."""
    if isinstance(twin, str):
        if twin not in pages:
            raise ValueError(f"no notebook has a figure {twin!r}")
        return f"{{numref}}`{twin}`, [](notebooks/{pages[twin]}.ipynb)"
    if twin["heading"] not in {heading for heading, _ in sections(twin["notebook"])}:
        raise ValueError(f"{twin['notebook']} has no heading {twin['heading']!r}")
    return f"*{twin['heading']}*, [](notebooks/{twin['notebook']}.ipynb)"
