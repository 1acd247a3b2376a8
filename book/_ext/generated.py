"""Directives whose content is made at build time from records, stamps, docstrings and the citation file.

`{claims} LETTER`, `{sources}`, `{board}`, `{scoreboard}`, `{hero}`, `{api} ROOM`, `{environment}`, `{runs}`,
`{timings}`, `{error-rates}` and `{citation}`.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from mechanism.report import api, environment, error_rates, scoreboard
from mechanism.report.files import CLAIMS, PACKAGE, results_folder

GENERATED = "_build/generated"  # not below _static, where a second copy of it would be published


class Markdown(SphinxDirective):
    """Markdown in a container of the directive's name; the page is read again at each build, as what it shows may have
    changed."""

    optional_arguments = 1

    def markdown(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(CLAIMS))
        self.env.note_reread()
        holder = nodes.container(classes=[self.name])
        lines = self.markdown().splitlines()
        self.state.nested_parse(StringList(lines, source=str(results_folder())), self.content_offset, holder)
        return [holder]

    @property
    def single(self) -> bool:
        return self.env.app.builder.name == "singlehtml"


class Claims(Markdown):
    """Every claim of the source whose letter is the argument."""

    required_arguments, optional_arguments = 1, 0

    def markdown(self) -> str:
        return scoreboard.claims_markdown(self.arguments[0], self.env.docname, single=self.single)


class Board(Markdown):
    """Every claim in one table."""

    def markdown(self) -> str:
        return scoreboard.board_markdown(self.env.docname, single=self.single)


class Scoreboard(Markdown):
    """How many claims of each source have which verdict."""

    def markdown(self) -> str:
        return scoreboard.scoreboard_markdown(self.env.docname)


class ErrorRates(Markdown):
    """How often the rules err, as simulated."""

    def markdown(self) -> str:
        return error_rates.rates_markdown()


class Environment(Markdown):
    def markdown(self) -> str:
        return environment.environment_markdown()


class Runs(Markdown):
    def markdown(self) -> str:
        return environment.runs_markdown()


class Timings(Markdown):
    def markdown(self) -> str:
        return environment.notebooks_markdown(Path(self.env.srcdir) / "notebooks")


class Citation(Markdown):
    def markdown(self) -> str:
        return environment.citation_markdown()


class Sections(SphinxDirective):
    """Markdown with titles, which become sections of the page."""

    def sections(self, text: str, source: str) -> list[nodes.Node]:
        holder = nodes.section()
        holder.document = self.state.document
        lines = StringList(text.splitlines(), source=source)
        self.state.nested_parse(lines, self.content_offset, holder, match_titles=True)
        return holder.children


class Sources(Sections):
    """Every source with its claims; the page is read again at each build, as verdicts may have changed."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(CLAIMS))
        self.env.note_reread()
        single = self.env.app.builder.name == "singlehtml"
        return self.sections(scoreboard.sources_markdown(self.env.docname, single=single), str(CLAIMS))


class Api(Sections):
    """Reference of the room that is the argument; read again when a module of it changed."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        room = self.arguments[0]
        for path in (PACKAGE / room).rglob("*.py"):
            self.env.note_dependency(str(path))
        return self.sections(api.room_markdown(room), f"mechanism.{room}")


class Hero(SphinxDirective):
    """The front page's figure."""

    def run(self) -> list[nodes.Node]:
        from mechanism.report.figures import png
        from mechanism.report.hero import hero

        self.env.note_reread()
        made = hero()
        write(Path(self.env.srcdir) / GENERATED / "hero.png", png(made.figure))
        figure = nodes.figure("", nodes.image(uri=f"/{GENERATED}/hero.png", alt=made.alt), classes=["hero"])
        caption = nodes.caption()
        self.state.nested_parse(StringList([made.caption], source="hero"), self.content_offset, caption)
        figure += nodes.caption("", "", *caption.children[0].children)
        return [figure]


def write(path: Path, content: bytes) -> None:
    """Write a file unless it is there with that content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def setup(app: Any) -> dict[str, bool]:
    kinds = {
        "claims": Claims, "sources": Sources, "board": Board, "scoreboard": Scoreboard, "hero": Hero,
        "error-rates": ErrorRates, "api": Api,
        "environment": Environment, "runs": Runs, "timings": Timings, "citation": Citation,
    }  # fmt: skip
    for name, kind in kinds.items():
        app.add_directive(name, kind)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
