"""Directives whose content is made at build time from records, stamps, docstrings and the citation file.

`{claims} LETTER`, `{sources}`, `{board}`, `{scoreboard}`, `{hero}`, `{api} ROOM`, `{contracts}`, `{guarantees}`,
`{environment}`, `{runs}`, `{timings}`, `{error-rates}` and `{citation}`.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from mechanism.report import api, environment, error_rates, guarantees, scoreboard
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


class Hero(Markdown):
    """The front page's figure."""

    def run(self) -> list[nodes.Node]:
        from mechanism.report.figures import png
        from mechanism.report.hero import hero

        self.env.note_reread()
        made = hero()
        path, content = Path(self.env.srcdir) / GENERATED / "hero.png", png(made.figure)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        figure = nodes.figure("", nodes.image(uri=f"/{GENERATED}/hero.png", alt=made.alt), classes=["hero"])
        figure += nodes.caption("", "", *self.parsed(nodes.caption(), made.caption).children[0].children)
        return [figure]


MARKDOWN: dict[str, Callable[[Markdown], str]] = {
    "claims": lambda asked: scoreboard.claims_markdown(asked.arguments[0], **asked.place),
    "board": lambda asked: scoreboard.board_markdown(**asked.place),
    "testbeds": lambda asked: scoreboard.on_testbeds_markdown(**asked.place),
    "scoreboard": lambda asked: scoreboard.scoreboard_markdown(asked.env.docname),
    "error-rates": lambda asked: error_rates.rates_markdown(),
    "contracts": lambda asked: contracts_markdown(),
    "guarantees": lambda asked: guarantees.map_markdown(),
    "environment": lambda asked: environment.environment_markdown(),
    "runs": lambda asked: environment.runs_markdown(),
    "timings": lambda asked: environment.notebooks_markdown(Path(asked.env.srcdir) / "notebooks"),
    "citation": lambda asked: environment.citation_markdown(),
}


def setup(app: Any) -> dict[str, bool]:
    kinds = dict.fromkeys(MARKDOWN, Markdown) | {"claims": Named, "sources": Sources, "hero": Hero, "api": Api}
    for name, kind in kinds.items():
        app.add_directive(name, kind)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
