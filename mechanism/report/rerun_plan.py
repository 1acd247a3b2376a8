"""Which notebooks apply to another model, and with which parameters.

A notebook's metadata say it, under `mechanism`: `about`, why it is not run for another model, and `texts`, `domains`
where its texts are domains and not parallel text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..corpus.library import DOMAINS, PARALLEL, load
from ..study.base.study import check_profile
from .build import select
from .execute import declared_parameters
from .files import NOTEBOOKS
from .run_folder import RerunError
from .stamp import KEY, read_notebook


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
    """Parameters of each notebook that is run, and of each other the reason why it is not; and what was read of the
    user's texts."""

    pages: Mapping[str, Mapping[str, Any]]
    skipped: Mapping[str, str]
    read: Sequence[str] = ()


def plan(asked: Rerun, model: str, sources: Path = NOTEBOOKS) -> Plan:
    """Choose notebooks and their parameters.

    Args:
        model: as the notebooks are to load it, pinned.

    Raises:
        RerunError: an unknown profile, or a named notebook that takes no model.
        BuildError: no notebook, or none of a name.
        CorpusError: texts that cannot be read.
    """
    try:
        check_profile(asked.profile)
    except ValueError as error:
        raise RerunError(str(error)) from None
    given, read = (asked.parallel, *asked.domains), list[str]()
    parallel, *domains = (None if data is None else _text(data, read) for data in given)
    asked = replace(asked, parallel=parallel, domains=tuple(filter(None, domains)))
    named = select(sources, asked.notebooks)
    pages, skipped = {}, {}
    for path in select(sources):
        known, about = declared_parameters(path), read_notebook(path).metadata.get(KEY, {})
        reason = about.get("about", "" if "model" in known else "it has no parameter `model`")
        if path not in named:
            reason = "it was not asked for (--notebooks)"
        elif asked.notebooks and "model" not in known:
            raise RerunError(f"notebook {path.stem} takes no model: {reason}")
        if reason and (path not in named or not asked.notebooks):
            skipped[path.stem] = reason
        else:
            wanted = _parameters(asked, model, about.get("texts") == "domains")
            pages[path.stem] = {key: value for key, value in wanted.items() if key in known and value is not None}
    return Plan(pages, skipped, read)


def _text(data: str, read: list[str]) -> str:
    """Data as a notebook finds it from its own folder, read once so that what is wrong with it is said now; what was
    read of it is added to the list."""
    if data.startswith("hub:") or data in PARALLEL + DOMAINS:
        return data
    corpus = load(data)
    read += [f"{corpus.name}, {line}" for line in corpus.told]
    return str(Path(data).resolve())


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
