"""Domain experts: what held-out text of every domain asks of the experts, in one language and in several."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import DOMAINS, PARALLEL
from ...corpus.store import Corpus, CorpusError
from ...measure.documents import Documents
from ...models import load as models
from ...models.load import model_hash
from ...models.passes import encode, room
from ...models.work import Work, padded
from ...trace import find_sites
from ..base import runs as training_runs
from ..base.records import other_seeds, recorded, recorded_of, texts_hash
from ..base.study import Study, plain
from .domain_passes import SUMS, documents, route
from .domain_text import (
    CHARS,
    Piece,
    common_language,
    common_languages,
    domain_pieces,
    load_domains,
    parallel_pieces,
    pieces,
)

ENGLISH = ("religion", "tech", *DOMAINS)
STUDY, CROSSED = "domain experts", "domains by languages"
COMMAND = "mechanism notebooks --only 20_domain_experts -p profile=full"
FULL = 200
"""Pieces per domain and language in the full profile."""


@dataclass(frozen=True)
class DomainConfig:
    """What is observed.

    Attributes:
        domains: corpora, by name, folder, table or `hub:NAME`, each a domain.
        languages: codes of the crossed design; all that its corpora have in common without any.
        max_segments: pieces of text (about 800 characters) per domain and language.
        split: of the corpora.
    """

    domains: tuple[str, ...] = ENGLISH
    languages: tuple[str, ...] | None = None
    max_segments: int = 24
    split: str = "test"

    def corpora(self) -> list[Corpus]:
        """The domains' corpora; none for no domains.

        Raises:
            CorpusError: a single domain, or two of one name.
        """
        return load_domains(self.domains, self.languages or ()) if self.domains else []


@dataclass(frozen=True, eq=False)
class DomainObservation:
    """Routing of documents by domain, in one language, and of the same documents in several.

    Attributes:
        found: see `observe`; crossed: see `observe_crossed`, None without such a design.
    """

    found: xr.Dataset
    crossed: xr.Dataset | None = None

    @cached_property
    def documents(self) -> Documents:
        """What the documents ask of the experts."""
        return documents(self.found)

    @property
    def record(self) -> str:
        """Address of the record that the documents come from, empty for a sample."""
        return str(self.found.attrs.get("record", ""))

    @property
    def lang(self) -> str:
        """The documents' language."""
        return str(self.found.attrs["lang"])

    @property
    def left_out(self) -> dict[str, str]:
        """Domains with too little text, and why."""
        return dict(json.loads(self.found.attrs["left_out"]))


def observe(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: DomainConfig = DomainConfig()
) -> xr.Dataset:
    """Pass the domains' text through the model, all in one language: sums over each document's tokens, see `route`.

    Raises:
        CorpusError: fewer than two domains with enough text, or no common language.
        DenseModelError: the model routes nowhere.
    """
    corpora = config.corpora()
    code = common_language(corpora)
    kept, left_out = domain_pieces(corpora, code, config.split, config.max_segments)
    found = route(model, tokenizer, kept).drop_vars(["lang", "name"])
    return found.assign_attrs(lang=code, left_out=json.dumps(left_out))


def domain_texts(config: DomainConfig, domains: Sequence[str], count: int = 12) -> dict[str, list[str]]:
    """At most `count` pieces of text of each domain that was observed, all in one language."""
    corpora = config.corpora()
    code = common_language(corpora)
    own = {corpus.domain: pieces(corpus, code, config.split, min(count, config.max_segments)) for corpus in corpora}
    return {name: [piece.text for piece in own[name]] for name in domains}


def observe_crossed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: DomainConfig = DomainConfig(domains=PARALLEL)
) -> xr.Dataset:
    """Activation rates `rate` of the same documents of several domains in several languages,
    `(document, lang, layer, expert)`, with `domain` and `tokens` of each document. Documents are cut behind the same
    segment in every language, such that each is read to its end; those that cannot be are left out, and counted in the
    attribute `left_out` by domain.

    Raises:
        CorpusError: fewer than two domains, or they have fewer than two languages, or two documents, in common.
        DenseModelError: the model routes nowhere.
    """
    codes, texts, left_out = crossed_pieces(tokenizer, config, room(model))
    routed = route(model, tokenizer, [piece for own in texts for piece in own], contributions=False)
    rate = routed["selections"].values / routed["tokens"].values[:, None, None]
    dims, shape = ("document", "lang", "layer", "expert"), (-1, len(codes))  # all languages of a document together
    data = {"rate": (dims, rate.reshape(*shape, *rate.shape[1:])),
            "tokens": (dims[:2], routed["tokens"].values.reshape(shape))}  # fmt: skip
    coords = {"domain": ("document", routed["domain"].values[:: len(codes)]), "lang": codes,
              "layer": routed["layer"].values, "expert": np.arange(rate.shape[2])}  # fmt: skip
    return xr.Dataset(data, coords, {"left_out": json.dumps(left_out)})


def crossed_pieces(
    tokenizer: PreTrainedTokenizerBase, config: DomainConfig, most: int
) -> tuple[list[str], list[list[Piece]], dict[str, int]]:
    """Languages, pieces by domain, and how many documents of a domain are left out, of `observe_crossed`."""
    corpora = config.corpora()
    codes = common_languages(corpora, config.languages)
    if len(codes) < 2:
        raise CorpusError(f"{' '.join(config.domains)}: fewer than two languages in common")

    def fits(texts: list[str]) -> bool:
        return max(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"])) <= most

    def cut(read: Callable[[list[str]], bool]) -> list[list[Piece]]:
        return [parallel_pieces(corpus, codes, config.split, config.max_segments, read) for corpus in corpora]

    texts = cut(fits)
    lost = [(len(every) - len(own)) // len(codes) for every, own in zip(cut(lambda texts: True), texts, strict=True)]
    texts = [own for own in texts if len(own) >= 2 * len(codes)]
    if len(texts) < 2:
        raise CorpusError(f"{' '.join(config.domains)}: fewer than two domains have two documents in all languages")
    left_out = {corpus.domain: n for corpus, n in zip(corpora, lost, strict=True) if n}
    return codes, texts, left_out


def study(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    dtype: str,
    profile: str = "auto",
    config: DomainConfig = DomainConfig(),
    crossed: tuple[str, ...] = PARALLEL,
) -> DomainObservation:
    """Observations under a profile, see `PROFILES`; the full ones are of up to 200 pieces per domain and language.

    Args:
        spec, dtype: of the model, for the addresses of its records.
        config: the sample; crossed: domains of the crossed design, none for no such design.

    Raises:
        ValueError: no such profile; CorpusError: see `observe`.
    """

    def asked(config: DomainConfig, observe: Callable[..., xr.Dataset], **about: str) -> Study:
        whole = replace(config, max_segments=FULL)
        key, texts = _key(spec, dtype, whole, **about), texts_hash(config.corpora())
        return Study(
            key, texts, lambda: observe(model, tokenizer, whole),
            lambda: observe(model, tokenizer, config), _command(spec), spec,
        )  # fmt: skip

    found = asked(config, observe, study=STUDY).result(profile)
    if not crossed:
        return DomainObservation(found)
    several = asked(replace(config, domains=crossed), observe_crossed, study=CROSSED, cut="whole segments")
    try:
        return DomainObservation(found, several.result(profile))
    except CorpusError:
        return DomainObservation(found)


def domain_work(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str,
    config: DomainConfig, crossed: Sequence[str] = PARALLEL,
) -> list[Work]:  # fmt: skip
    """Work of `domain_experts.study`, arguments as there; none where its first part is recorded."""
    full, corpora = profile == "full", config.corpora()
    kept = recorded(_key(spec, dtype, replace(config, max_segments=FULL), study=STUDY), texts_hash(corpora))
    if profile != "small" and kept is not None:
        return []
    config, sites = replace(config, max_segments=FULL) if full else config, find_sites(model)
    pieces, _ = domain_pieces(corpora, common_language(corpora), config.split, config.max_segments)
    found = [_routed("contributes", model, tokenizer, pieces)]
    with suppress(CorpusError):
        _, several, _ = crossed_pieces(tokenizer, replace(config, domains=tuple(crossed)), room(model))
        found.append(_routed("counts", model, tokenizer, [piece for own in several for piece in own]))
    cells = 4 * len(SUMS) * len(sites) * max(site.num_experts for site in sites)
    documents = len({(piece.domain, piece.document) for piece in pieces})
    return [own._replace(disk=cells * documents if full and not i else 0) for i, own in enumerate(found)]


def timed_route(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], contributions: bool = True
) -> Callable[[], object]:
    """Text passed as page 20 does, in pieces as long as there, ready to be timed."""
    text = "\n".join(texts)
    own = [Piece("", "", str(i), text[start : start + CHARS]) for i, start in enumerate(range(0, len(text), CHARS))]
    return lambda: route(model, tokenizer, own, contributions)


def _routed(kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> Work:
    lengths = [len(own) for own in encode(tokenizer, [piece.text for piece in pieces], room(model))]
    return Work(kind, float(padded(lengths) * len(find_sites(model))))


def _command(spec: str) -> str:
    """What makes the record of a model, whichever is the default one."""
    return f"{COMMAND} -p model={spec}"


def others(spec: str, dtype: str, config: DomainConfig) -> dict[str, DomainObservation]:
    """Recorded full observations of the other training seeds, on the same domains, by name."""
    key = _key(spec, dtype, replace(config, max_segments=FULL), study=STUDY)
    found = recorded_of(spec, key, texts_hash(config.corpora()))
    return {name: DomainObservation(own) for name, own in found.items()}


def _key(spec: str, dtype: str, whole: DomainConfig, **about: str) -> dict[str, Any]:
    return {"model": model_hash(spec), "dtype": f"torch.{dtype}", **plain(whole), **about}


def to_make(spec: str, dtype: str, config: DomainConfig) -> list[str]:
    """One sentence for each training seed that `others` lacks: which step is missing, and its command. None for domains
    of a reader's own."""
    if config.domains != ENGLISH:
        return []
    known, trained = others(spec, dtype, config), training_runs.records()
    return [_step(name, name in trained) for name in other_seeds(spec) if name not in known]


def _step(name: str, trained: bool) -> str:
    record = f"`{_command(name)}` makes its record of this page, after which its weights can be deleted"
    if (models.MODELS / name / "config.json").exists():
        return f"{name} is trained and its weights are here: {record}."
    state = "is trained, but its weights were not kept" if trained else "is not trained yet"
    return f"{name} {state}: `mechanism train --config {name} --export {name}` makes them, then {record}."
