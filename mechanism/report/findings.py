"""What a page found, claim by claim, in words that are computed from the rule of each claim and its record."""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..measure.evidence import Evidence
from .claims import Claim, load_claims, load_testbeds
from .execute import declared_parameters
from .files import HOME, NOTEBOOKS
from .record import evidence_of, read_records
from .scoreboard import badge, claim_rows, estimate_text, needed
from .stamp import read_notebook
from .verdicts import NAMES, SMALLEST, Comparison, Verdict

_LOW, _HIGH = "interval.low", "interval.high"
# (side, operator) of a comparison: how it reads where it holds, and where it does not.
_WORDS = {
    (_LOW, ">"): ("the interval lies above {}", "the interval does not lie above {}"),
    (_LOW, ">="): ("the interval lies at or above {}", "the interval does not lie at or above {}"),
    (_LOW, "<="): ("the effect may reach {}", "the interval ends short of {}"),
    (_HIGH, "<"): ("the interval lies below {}", "the interval does not lie below {}"),
    (_HIGH, "<="): ("the interval lies at or below {}", "the interval does not lie at or below {}"),
    (_HIGH, ">="): ("the effect may reach {}", "the interval ends short of {}"),
}
_PLAIN = {
    ">": ("is above {}", "is not above {}"),
    ">=": ("is at least {}", "is less than {}"),
    "<": ("is below {}", "is not below {}"),
    "<=": ("is at most {}", "is more than {}"),
    "==": ("is {}", "is not {}"),
    "!=": ("is not {}", "is {}"),
}
_HEADING = re.compile(r"^##+ (.*)$", re.MULTILINE)
_CLAIM = re.compile(r"\b[A-Z]\d+\b")
_JUDGES = re.compile(r"\b(?:verdict|judge)\(\s*\"(\w+)\"")


def why(claim: Claim, evidence: Evidence) -> str:
    """Why a claim has its verdict, as a sentence: the conditions of its rule that decide, with their numbers.

    Raises:
        RuleError: the evidence lacks something that the rule asks for.
    """
    verdict = claim.verdict(evidence)
    rule = claim.rule

    def told(conditions: tuple[Comparison, ...], held: bool) -> str:
        chosen = [c for c in conditions if c.holds(evidence, claim.smallest) == held]
        return _joined([_words(c, evidence, claim.smallest, held) for c in chosen])

    if verdict == Verdict.INCONCLUSIVE:
        short, open_ = told(rule.replicated, False), told(rule.refuted, False)
        return f"Not replicated, as {short}; not refuted, as {open_}."
    if verdict == Verdict.PARTLY:
        return f"In part, as {told(rule.partly, True)}; not more, as {told(rule.replicated, False)}."
    return f"{str(verdict).capitalize()}, as {told(getattr(rule, str(verdict)), True)}."


def _words(condition: Comparison, evidence: Evidence, smallest: float, held: bool) -> str:
    """One condition in words."""
    here, there = (_side(side, evidence, smallest) for side in (condition.left, condition.right))
    words = _WORDS.get((condition.left, condition.operator))
    if words and evidence.low < evidence.high:
        return words[not held].format(there)
    towards = condition.operator == (">=" if smallest > 0 else "<=")
    if (condition.left, condition.right) == ("estimate", SMALLEST) and towards and evidence.low < evidence.high:
        return f"the estimate {'reaches' if held else 'falls short of'} {there}"
    return f"{here} {_PLAIN[condition.operator][not held].format(there)}"


def _side(side: str, evidence: Evidence, smallest: float) -> str:
    if side == SMALLEST:
        return f"the smallest effect of interest ({smallest:.3g})"
    if side not in NAMES:
        return "zero" if float(side) == 0 else side
    value = getattr(evidence, NAMES[side])
    exact = evidence.low == evidence.high
    name = {"null": "the null", "p": "p", "n": "n"}.get(side, "the number" if exact else "the estimate")
    return f"{name} ({value:.3g})" if side not in ("p", "n") else f"{name} = {value:.2g}"


def _joined(parts: list[str]) -> str:
    """Parts as one clause; a part that another repeats is left out."""
    parts = list(dict.fromkeys(parts))
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def findings_markdown(page: str, folder: Path | None = None, single: bool = False) -> str:
    """The box that opens a page: each of its claims with the verdict, the number, why, and the figure beside it.

    Args:
        page: the document it stands on, such as `notebooks/10_routing_by_language`; folder: results folder; single:
            whether all pages are one, as in print.
    """
    notebook = Path(page).name
    testbed = next((name for name, own in load_testbeds().items() if own.notebook == notebook), "")
    claims = load_claims()  # a testbed changes neither rule nor smallest effect
    records, shown, rows = read_records(folder, testbed), figures_of(notebook), _rows(notebook, folder)
    lines = []
    for name, row in rows.items():
        found = evidence_of(records.get(name, {}))
        told = why(claims[name], found) if found else _sentence(row["note"] or "not judged yet")
        more = [f"Null: {row['null_name']}."] if "the null" in told else []
        more += [f"See {{numref}}`{shown[name]}`."] if name in shown else []
        lines += [
            f"**{name}** {row['statement']}",
            f": {badge(row, page, single)} **{estimate_text(row)}**" if found else f": {badge(row, page, single)}",
            f"  {' '.join(filter(None, (told, _sentence(needed(row)), *_elsewhere(row, page, single), *more)))}",
            "",
        ]
    if testbed and (left := [name for name in load_testbeds()[testbed].resampled if name not in rows]):
        lines += [f"Not judged yet: {', '.join(left)}.", ""]
    return "\n".join([*lines, _again(notebook)])


def _rows(notebook: str, folder: Path | None) -> dict[str, dict[str, Any]]:
    """The rows of `claim_rows` that a notebook judges, or those of its testbed, by claim."""
    every = [own for row in claim_rows(folder) for own in (row, *row["testbeds"])]
    return {row["id"]: row for row in every if row["notebook"] == notebook}


def _again(notebook: str) -> str:
    """How to run a page again, here or where notebooks are hosted."""
    asked = declared_parameters(NOTEBOOKS / f"{notebook}.ipynb")
    number = notebook.split("_")[0]
    own = f"`mechanism run --model MODEL --notebooks {number} --out FOLDER` on your model" if "model" in asked else ""
    given = ", ".join(f"`{name}`" for name in asked if name != "model")
    place = f"{HOME.removeprefix('https://github.com/')}"
    hosts = [
        f"[Binder](https://mybinder.org/v2/gh/{place}/main?urlpath=lab/tree/notebooks/{notebook}.ipynb)",
        f"[Colab](https://colab.research.google.com/github/{place}/blob/main/notebooks/{notebook}.ipynb)",
    ]
    here = f"`mechanism notebooks --only {number} -p NAME=VALUE` with any of {given}"
    return f"*Rerun this page:* {', or '.join(filter(None, (own, here)))}; on {' or '.join(hosts)}."


def captions(page: str, folder: Path | None = None) -> dict[str, str]:
    """What a page's figures show of its claims, by the name of the figure, for its caption; arguments as in
    `findings_markdown`."""
    told: dict[str, list[str]] = {}
    shown = figures_of(Path(page).name)
    for name, row in _rows(Path(page).name, folder).items():
        if row["estimate"] is not None and name in shown:
            found = f"{name} {row['verdict']}: {estimate_text(row)}".replace("\\", "")
            told.setdefault(shown[name], []).append(found)
    return {figure: f"{'; '.join(found)}." for figure, found in told.items()}


def _elsewhere(row: Mapping[str, Any], page: str, single: bool) -> list[str]:
    """The verdicts on other testbeds."""
    return [f"On {own['testbed']}: {badge(own, page, single)} {estimate_text(own)}." for own in row["testbeds"]]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


@functools.cache
def figures_of(notebook: str) -> dict[str, str]:
    """For each claim of a notebook the name of its figure: the last before its verdict in the section of the verdict,
    else that of the first section whose heading names it, and there by the order of the names."""
    judged, named = dict[str, str](), dict[str, str]()
    for heading, cells in sections(notebook):
        figures: list[str] = []
        for cell in cells:
            figures += filter(None, [cell.metadata.get("mystnb", {}).get("figure", {}).get("name")])
            if cell.cell_type == "code" and figures:
                judged = dict.fromkeys(_JUDGES.findall(cell.source), figures[-1]) | judged
        if figures:
            claims = _CLAIM.findall(heading)
            named = {claim: figures[min(i, len(figures) - 1)] for i, claim in enumerate(claims)} | named
    return named | judged


def sections(notebook: str) -> list[tuple[str, list[Any]]]:
    """Headings of a notebook with the cells below each."""
    found: list[tuple[str, list[Any]]] = [("", [])]
    for cell in read_notebook(NOTEBOOKS / f"{notebook}.ipynb").cells:
        if cell.cell_type == "markdown" and (headings := _HEADING.findall(cell.source)):
            found += [(heading, []) for heading in headings]
        found[-1][1].append(cell)
    return found
