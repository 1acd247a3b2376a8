"""Directive that lists the contracts of `mechanism.trace` from their docstrings: `{contracts}`."""

import inspect
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


def contracts_markdown() -> str:
    """A table with a row per contract: its name, what its docstring says, whether it runs at attach."""
    from mechanism.trace.checks import FULL, QUICK

    lines = ["| contract | what must hold | |", "| --- | --- | --- |"]
    for contract in FULL:
        text = " ".join(inspect.cleandoc(contract.__doc__ or "").split())
        if not text:
            raise ValueError(f"contract {contract.__name__} has no docstring")
        lines.append(f"| `{contract.__name__}` | {text} | {'at attach' if contract in QUICK else ''} |")
    return "\n".join(lines)


class Contracts(SphinxDirective):
    """Every contract, in the order in which they run."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        holder = nodes.container(classes=["contracts"])
        lines = contracts_markdown().splitlines()
        self.state.nested_parse(StringList(lines, source="mechanism.trace.checks"), self.content_offset, holder)
        return [holder]


def setup(app: Any) -> dict[str, bool]:
    app.add_directive("contracts", Contracts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
