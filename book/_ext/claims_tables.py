"""Directives that show claims and verdicts from the records: `{claims} LETTER` and `{scoreboard}`."""

from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from mechanism.report.files import CLAIMS, results_folder
from mechanism.report.scoreboard import claims_markdown, scoreboard_markdown


class _Table(SphinxDirective):
    """A table written as Markdown; the page is read again whenever the claims or any record changed."""

    css_class: str

    def markdown(self) -> str:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(CLAIMS))
        self.env.note_reread()
        holder = nodes.container(classes=[self.css_class])
        lines = self.markdown().splitlines()
        self.state.nested_parse(StringList(lines, source=str(results_folder())), self.content_offset, holder)
        return [holder]


class Claims(_Table):
    """Every claim of the source whose letter is the argument."""

    required_arguments = 1
    css_class = "claims"

    def markdown(self) -> str:
        return claims_markdown(self.arguments[0], self.env.docname)


class Scoreboard(_Table):
    """How many claims of each source have which verdict."""

    css_class = "scoreboard"

    def markdown(self) -> str:
        return scoreboard_markdown(self.env.docname)


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("claims", Claims)
    app.add_directive("scoreboard", Scoreboard)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
