"""Which notebooks apply to another model, and with which parameters.

A notebook's metadata say it, under `mechanism`: `about`, why it is not run for another model, and `texts`, `domains`
where its texts are domains and not parallel text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..corpus.library import DOMAINS, PARALLEL, load
from ..corpus.store import absent
from ..study.base.study import check_profile
from .build import BuildError
from .execute import declared_parameters
from .files import NOTEBOOKS
from .run_folder import RerunError
from .stamp import KEY, read_notebook

_Pages = Mapping[str, Mapping[str, Any]]


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
        profile: see `study.base.study.PROFILES`.
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
    profile: str = "auto"
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
    try:
        check_profile(asked.profile)
    except ValueError as error:
        raise RerunError(str(error)) from None
    parallel = _text(asked.parallel) if asked.parallel else None
    asked = replace(asked, parallel=parallel, domains=tuple(map(_text, asked.domains)))
    declared = {path.stem: declared_parameters(path) for path in sorted(sources.glob("*.ipynb"))}
    about = {name: read_notebook(sources / f"{name}.ipynb").metadata.get(KEY, {}) for name in declared}
    _refuse_unknown(asked.notebooks, declared, about)
    pages, skipped = {}, {}
    for name, known in declared.items():
        reason = _skipped(name, known, about[name], asked.notebooks)
        if reason:
            skipped[name] = reason
        else:
            given = _parameters(asked, model, about[name].get("texts") == "domains")
            pages[name] = {key: value for key, value in given.items() if key in known and value is not None}
    return Plan(pages, skipped)


def _text(data: str) -> str:
    """Data as a notebook finds it from its own folder, read once so that what is wrong with it is said now."""
    if data.startswith("hub:") or data in PARALLEL + DOMAINS:
        return data
    load(data)
    return str(Path(data).resolve())


def _refuse_unknown(asked: tuple[str, ...], declared: _Pages, about: _Pages) -> None:
    if not declared:
        raise BuildError(absent("notebooks", "restore them from version control"))
    for wanted in asked:
        found = [name for name in declared if name.startswith(wanted)]
        if not found:
            raise RerunError(f"no notebook {wanted!r}: there are {', '.join(declared)}")
        for name in found:
            if "model" not in declared[name]:
                raise RerunError(f"notebook {name} takes no model: {_reason(about[name])}")


def _skipped(name: str, known: Mapping[str, Any], about: Mapping[str, Any], asked: tuple[str, ...]) -> str:
    """Why a notebook is not run, empty when it is; one that takes a model is run when it is named."""
    if any(name.startswith(wanted) for wanted in asked):
        return ""
    if asked:
        return "it was not asked for (--notebooks)"
    return _reason(about) if "about" in about or "model" not in known else ""


def _reason(about: Mapping[str, Any]) -> str:
    return about.get("about", "it has no parameter `model`")


def _parameters(asked: Rerun, model: str, on_domains: bool) -> dict[str, Any]:
    """Everything asked for; a notebook takes what it declares. Languages choose among the texts that were given: pages
    whose texts are still the committed ones keep their own when only the others' were changed."""
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
