"""Which notebooks apply to another model, and with which parameters."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..corpus.library import DOMAINS, PARALLEL, load
from .build import BuildError
from .execute import declared_parameters
from .files import NOTEBOOKS
from .run_folder import RerunError

# Notebooks about the report itself or about models trained for it, by the beginning of their names.
ABOUT_THE_REPORT = {
    "00": "it is about the report's own records",
    "01": "it is about the committed texts, whatever the model",
    "02": "it is about how the embedded model was trained; `mechanism evaluate MODEL` prints its table",
    "30": "it needs models trained for it (`mechanism train --grid mh_moe`)",
    "40": "it is about formulas and layers of given sizes, whatever the model",
    "41": "it needs models trained for it (`mechanism train --grid cross_lingual`)",
}
PROFILES = ("small", "full")
_DOMAINS = "2"
"""Beginning of the names of pages whose texts are domains; those of other pages are parallel texts."""


@dataclass(frozen=True)
class Rerun:
    """What to run.

    Attributes:
        model: a committed model's name, a folder, or a hub id with `@revision` or without.
        out: folder of the run.
        device, dtype: see `load_model`.
        languages: codes; () for all.
        parallel: a corpus of parallel text for the pages on languages: name, folder, table or `hub:NAME`.
        domains: corpora, each a domain, for the pages on domains.
        notebooks: names, or beginnings of names; () for all that apply.
        profile: `small` or `full`.
        max_segments, seed: parameters of the notebooks; None for their own.
        force: execute also what is unchanged.
    """

    model: str
    out: Path
    device: str = "auto"
    dtype: str = "float32"
    languages: tuple[str, ...] = ()
    parallel: str | None = None
    domains: tuple[str, ...] = ()
    notebooks: tuple[str, ...] = ()
    profile: str = "small"
    max_segments: int | None = None
    seed: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Plan:
    """Parameters of each notebook that is run, and of each other the reason why it is not."""

    pages: Mapping[str, Mapping[str, Any]]
    skipped: Mapping[str, str]


def plan(asked: Rerun, model: str, sources: Path = NOTEBOOKS) -> Plan:
    """Choose notebooks and their parameters.

    Args:
        model: as the notebooks are to load it, pinned.

    Raises:
        RerunError: an unknown profile, no such notebook, or one that takes no model.
        CorpusError: texts that cannot be read.
    """
    if asked.profile not in PROFILES:
        raise RerunError(f"unknown profile {asked.profile!r}: there are {' and '.join(PROFILES)}")
    parallel = _text(asked.parallel) if asked.parallel else None
    asked = replace(asked, parallel=parallel, domains=tuple(map(_text, asked.domains)))
    declared = {path.stem: declared_parameters(path) for path in sorted(sources.glob("*.ipynb"))}
    _refuse_unknown(asked.notebooks, declared)
    pages, skipped = {}, {}
    for name, known in declared.items():
        reason = _skipped(name, known, asked.notebooks)
        if reason:
            skipped[name] = reason
        else:
            given = _parameters(asked, model, name)
            pages[name] = {key: value for key, value in given.items() if key in known and value is not None}
    return Plan(pages, skipped)


def _text(data: str) -> str:
    """Data as a notebook finds it from its own folder, read once so that what is wrong with it is said now."""
    if data.startswith("hub:") or data in PARALLEL + DOMAINS:
        return data
    load(data)
    return str(Path(data).resolve())


def _refuse_unknown(asked: tuple[str, ...], declared: Mapping[str, Mapping[str, Any]]) -> None:
    if not declared:
        raise BuildError("no notebooks: restore them from version control")
    for wanted in asked:
        found = [name for name in declared if name.startswith(wanted)]
        if not found:
            raise RerunError(f"no notebook {wanted!r}: there are {', '.join(declared)}")
        for name in found:
            if "model" not in declared[name]:
                raise RerunError(f"notebook {name} takes no model: {_about(name)}")


def _skipped(name: str, known: Mapping[str, Any], asked: tuple[str, ...]) -> str:
    """Why a notebook is not run, empty when it is; one that takes a model is run when it is named."""
    if any(name.startswith(wanted) for wanted in asked):
        return ""
    if asked:
        return "it was not asked for (--notebooks)"
    listed = any(name.startswith(prefix) for prefix in ABOUT_THE_REPORT)
    return _about(name) if listed or "model" not in known else ""


def _about(name: str) -> str:
    known = (reason for prefix, reason in ABOUT_THE_REPORT.items() if name.startswith(prefix))
    return next(known, "it has no parameter `model`")


def _parameters(asked: Rerun, model: str, name: str) -> dict[str, Any]:
    """Everything asked for; a notebook takes what it declares. Languages choose among the texts that were given: pages
    whose texts are still the committed ones keep their own when only the others' were changed."""
    on_domains = name.startswith(_DOMAINS)
    texts = list(asked.domains) if on_domains else [asked.parallel] if asked.parallel else []
    others = asked.parallel if on_domains else asked.domains
    return {
        "model": model,
        "device": asked.device,
        "dtype": asked.dtype,
        "languages": list(asked.languages) if asked.languages and (texts or not others) else None,
        "data": texts or None,
        "profile": asked.profile,
        "max_segments": asked.max_segments,
        "seed": asked.seed,
    }
