"""Directives whose content is made at build time from records, stamps, docstrings and the citation file.

`{claims} LETTER`, `{sources}`, `{findings}`, `{board}`, `{scoreboard}`, `{verdict-bar}`, `{hero}`, `{story} LETTER`,
`{api} ROOM`, `{contracts}`, `{guarantees}`, `{environment}`, `{runs}`, `{timings}`, `{error-rates}`, `{twins}`
and `{citation}`.
"""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from myst_nb import sphinx_
from sphinx.util.docutils import SphinxDirective

from mechanism.report import api, environment, error_rates, findings, guarantees, scoreboard, story, twins
from mechanism.report.files import PACKAGE
from mechanism.report.tables import markdown_table

GENERATED = "_build/generated"  # not below _static, where a second copy of it would be published


def contracts_markdown() -> str:
    """A table with a row per contract: its name, what its docstring says, whether it runs at attach."""
    from mechanism.trace.checks import FULL, QUICK

    rows = []
    for contract in FULL:
        text = " ".join(inspect.cleandoc(contract.__doc__ or "").split())
        if not text:
            raise ValueError(f"contract {contract.__name__} has no docstring")
        rows.append((f"`{contract.__name__}`", text, "at attach" if contract in QUICK else ""))
    return markdown_table(("contract", "what must hold", ""), rows)


class Markdown(SphinxDirective):
    """What `MARKDOWN` says of the directive's name, in a container of that name; the page is read again at each build,
    as what it shows may have changed."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        return [self.parsed(nodes.container(classes=[self.name]), MARKDOWN[self.name](self))]

    def parsed(self, holder: nodes.Element, text: str, titles: bool = False) -> nodes.Element:
        lines = StringList(text.splitlines(), source=self.name)
        self.state.nested_parse(lines, self.content_offset, holder, match_titles=titles)
        return holder

    @property
    def place(self) -> dict[str, Any]:
        """Where claims are shown, as `scoreboard` takes it."""
        return {"page": self.env.docname, "single": self.env.app.builder.name == "singlehtml"}


class Named(Markdown):
    """Markdown about what the argument names."""

    required_arguments, optional_arguments = 1, 0


class Sources(Markdown):
    """Every source with its claims, in sections of the page."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        return self.sections(scoreboard.sources_markdown(**self.place))

    def sections(self, text: str) -> list[nodes.Node]:
        holder = nodes.section()
        holder.document = self.state.document
        return self.parsed(holder, text, titles=True).children


class Api(Sources):
    """Reference of the room that is the argument, in sections; read again when a module of it changed."""

    required_arguments, optional_arguments = 1, 0

    def run(self) -> list[nodes.Node]:
        for path in (PACKAGE / self.arguments[0]).rglob("*.py"):
            self.env.note_dependency(str(path))
        return self.sections(api.room_markdown(self.arguments[0]))


class Drawn(Markdown):
    """Something with a figure that is drawn at build time."""

    def figure(self, name: str, made: Figure, alt: str, caption: str) -> nodes.figure:
        from mechanism.report.figures import png

        path, content = Path(self.env.srcdir) / GENERATED / f"{name}.png", png(made, dpi=96)
        plt.close(made)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        found = nodes.figure(
            "", nodes.image(uri=f"/{GENERATED}/{name}.png", alt=alt, loading="lazy"), classes=["drawn"]
        )
        found += nodes.caption("", "", *self.parsed(nodes.caption(), caption).children[0].children)
        return found


class Hero(Drawn):
    """The front page's figure."""

    def run(self) -> list[nodes.Node]:
        from mechanism.report.hero import hero

        self.env.note_reread()
        made = hero()
        return [self.figure("hero", made.figure, made.alt, made.caption)]


class Story(Drawn):
    """A source by its letter: what it asks, what became of its claims, and how large their effects are."""

    required_arguments, optional_arguments = 1, 0

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        (letter,) = self.arguments
        told = self.parsed(nodes.container(classes=["story"]), story.source_markdown(letter, **self.place))
        figure, alt, caption = story.effects_figure(letter)
        return [told, self.figure(f"effects-{letter}", figure, alt, caption)]


MARKDOWN: dict[str, Callable[[Markdown], str]] = {
    "claims": lambda asked: scoreboard.claims_markdown(asked.arguments[0], **asked.place),
    "board": lambda asked: scoreboard.board_markdown(**asked.place),
    "findings": lambda asked: findings.findings_markdown(**asked.place),
    "verdict-bar": lambda asked: story.bar_html(),
    "testbeds": lambda asked: scoreboard.on_testbeds_markdown(**asked.place),
    "scoreboard": lambda asked: scoreboard.scoreboard_markdown(asked.env.docname),
    "error-rates": lambda asked: error_rates.rates_markdown(),
    "contracts": lambda asked: contracts_markdown(),
    "guarantees": lambda asked: guarantees.map_markdown(),
    "environment": lambda asked: environment.environment_markdown(),
    "runs": lambda asked: environment.runs_markdown(),
    "timings": lambda asked: environment.notebooks_markdown(Path(asked.env.srcdir) / "notebooks"),
    "twins": lambda asked: twins.twins_markdown(),
    "citation": lambda asked: environment.citation_markdown(),
}


def state_findings(app: Any, doctree: nodes.document) -> None:
    """Let the captions of a page's figures begin with what was found."""
    page = app.env.docname
    if not page.startswith("notebooks/") or not any(
        "findings" in node["classes"] for node in doctree.findall(nodes.container)
    ):
        return
    told = findings.captions(page)
    for figure in doctree.findall(nodes.figure):
        for name in set(figure["names"]) & set(told):
            caption = next(figure.findall(nodes.caption))
            caption.insert(0, [nodes.strong("", told[name]), nodes.Text(" ")])


def first_only(context: Any) -> Any:
    """MyST-NB would wrap each output of a cell in the cell's figure, and its label would be ambiguous: only the first
    output is one, and what comes after it, the link to its numbers, stands below."""

    def chosen(renderer: Any, options: Any, line: int) -> Any:
        name = nodes.fully_normalize_name(str((options or {}).get("name", "")))
        return nullcontext() if name and name in renderer.document.nameids else context(renderer, options, line)

    return chosen


def setup(app: Any) -> dict[str, bool]:
    sphinx_.create_figure_context = first_only(sphinx_.create_figure_context)
    app.connect("doctree-read", state_findings)
    kinds = dict.fromkeys(MARKDOWN, Markdown) | {
        "claims": Named,
        "sources": Sources,
        "hero": Hero,
        "story": Story,
        "api": Api,
    }
    for name, kind in kinds.items():
        app.add_directive(name, kind)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
