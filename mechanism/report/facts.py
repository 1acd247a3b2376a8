"""Facts that a source names about published systems, beside what their own publications say, from `data/facts.yaml`."""

import html
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pybtex.database import BibliographyData, parse_file

from .files import BOOK, FACTS, read_yaml

VERDICTS = ("borne out", "contradicted", "no source")
_TEXTS = ("id", "section", "claim", "published", "verdict")


class FactError(ValueError):
    """A table of facts that is incomplete, or cites what the bibliography does not hold."""


@dataclass(frozen=True)
class Fact:
    """A fact as a source names it.

    Attributes:
        id; section: of the source; claim: what it says; published: what the publications say; verdict: one of
            `VERDICTS`; sources: citation keys, of what was looked at if nothing says so.
    """

    id: str
    section: str
    claim: str
    published: str
    verdict: str
    sources: tuple[str, ...]


def bibliography() -> BibliographyData:
    """The report's bibliography."""
    return parse_file(str(BOOK / "references.bib"))


def load_facts(path: Path = FACTS) -> list[Fact]:
    """The facts in the file's order.

    Raises:
        FactError: an incomplete or doubled entry, an unknown verdict, or a source that the bibliography lacks; only a
            fact without source may cite nothing.
    """
    known = bibliography().entries
    facts = [_fact(entry, known) for entry in read_yaml(path)]
    ids = [fact.id for fact in facts]
    if len(set(ids)) < len(ids):
        raise FactError("a fact stands twice in the table")
    return facts


def _fact(entry: dict, known: Iterable[str]) -> Fact:
    name = entry.get("id", "without id")
    missing = [field for field in _TEXTS if not entry.get(field)]
    if missing:
        raise FactError(f"fact {name} has no {', '.join(missing)}")
    if entry["verdict"] not in VERDICTS:
        raise FactError(f"fact {name}: verdict is {entry['verdict']!r}, it must be one of {', '.join(VERDICTS)}")
    sources = tuple(entry.get("sources") or ())
    unknown = [key for key in sources if key not in known]
    if unknown or (not sources and entry["verdict"] != "no source"):
        raise FactError(f"fact {name}: {', '.join(unknown) or 'a verdict without source'} is not in the bibliography")
    texts = {field: " ".join(str(entry[field]).split()) for field in _TEXTS}
    return Fact(**texts, sources=sources)


def share_borne_out(facts: Iterable[Fact]) -> float:
    """Share of the facts that their sources bear out."""
    verdicts = [fact.verdict for fact in facts]
    return verdicts.count("borne out") / len(verdicts)


def facts_table(facts: Iterable[Fact]) -> pd.DataFrame:
    """The table of a page: `section`, `the article says`, `published`, `sources` as links in HTML, `verdict`."""
    entries = bibliography().entries
    rows = [
        {
            "section": fact.section, "the article says": html.escape(fact.claim),
            "published": html.escape(fact.published), "sources": "; ".join(_link(entries[k]) for k in fact.sources),
            "verdict": fact.verdict,
        }
        for fact in facts
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _link(entry) -> str:
    people = entry.persons["author"]
    name = "".join(people[0].last_names).strip("{}") + (" et al." if len(people) > 1 else "")
    return f'<a href="{html.escape(entry.fields["url"])}">{html.escape(name)} {entry.fields["year"]}</a>'
