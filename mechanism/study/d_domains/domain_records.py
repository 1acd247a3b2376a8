"""Observations of domains from their records: all held-out text once, a sample wherever there is no record."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import PARALLEL
from ...measure.documents import Documents
from ...models import load as models
from ...models.load import resolve
from ..base import runs as training_runs
from ..base.records import CONFIG, RESULT, model_hash, recorded, stored, texts_hash
from .domain_experts import ENGLISH, DomainConfig, DomainObservation, observe, observe_crossed
from .domain_text import load_domains

SEEDS = ("embedded", "seed1", "seed2")
"""A model of each training seed; the first one has read more than the others."""
STUDY, CROSSED = "domain experts", "domains by languages"
COMMAND = "mechanism notebooks --only 20_domain_experts -p profile=full"
FULL = 200
PROFILES = ("auto", "small", "full")
_SUMS = ("selections", "weight", "activity", "peak")


class Observed(NamedTuple):
    """What notebook 20 shows: documents of domains, the crossed design (None without one), and the hash of the record
    that they come from (empty for a sample)."""

    single: DomainObservation
    crossed: xr.Dataset | None
    record: str


def observed(
    spec: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: DomainConfig,
    crossed: tuple[str, ...] = PARALLEL,
    profile: str = "auto",
) -> Observed:
    """Observations under a profile: `full`, up to 200 pieces per domain and language, is read from its record or
    computed and recorded; `small` is the sample of the configuration; `auto` is `full` where there is a record.

    Args:
        spec: the model as it was named; crossed: domains of the crossed design, none for no such design.

    Raises:
        ValueError: no such profile; CorpusError: see `observe`.
    """
    if profile not in PROFILES:
        raise ValueError(f"there is no profile {profile!r}; use {', '.join(PROFILES)}")
    both = replace(config, domains=crossed)
    if profile != "small":
        keys = (
            _key(spec, model, replace(config, max_segments=FULL)),
            _key(spec, model, replace(both, max_segments=FULL)),
        )
        data = [texts_hash(load_domains(c.domains, c.languages or ())) if c.domains else "" for c in (config, both)]
        if profile == "full" or recorded(keys[0], data[0]) is not None:
            whole = replace(config, max_segments=FULL)
            name, command = Path(resolve(spec)).name, _command(spec)
            found = stored(keys[0], data[0], lambda: _to_dataset(observe(model, tokenizer, whole), name), command)
            wide = _crossed_record(model, tokenizer, both, keys[1], data[1], profile == "full", command)
            return Observed(_from_dataset(found), wide, found.attrs["record"])
    return Observed(observe(model, tokenizer, config), observe_crossed(model, tokenizer, both) if crossed else None, "")


def _command(spec: str) -> str:
    """What makes the record of a model, whichever is the default one."""
    return f"{COMMAND} -p model={spec}"


def _key(spec: str, model: PreTrainedModel, config: DomainConfig) -> dict[str, Any]:
    return {"study": STUDY, "model": model_hash(spec), "dtype": str(model.dtype), **_plain(config)}


def _plain(config: DomainConfig) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def _crossed_record(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: DomainConfig, key: dict[str, Any], data: str,
    full: bool, command: str,
) -> xr.Dataset | None:  # fmt: skip
    """The crossed design from its record; without one computed and recorded if `full`, else the sample of the
    configuration; None where there is none."""
    if not config.domains:
        return None
    key = key | {"study": CROSSED, "cut": "whole segments"}
    found = recorded(key, data)
    if found is not None:
        return found
    made = observe_crossed(model, tokenizer, replace(config, max_segments=FULL) if full else config)
    if not full:
        return made
    return None if made is None else stored(key, data, lambda: made, command)


def others(spec: str, config: DomainConfig) -> dict[str, DomainObservation]:
    """Recorded full observations of the other training seeds, on the same domains, by name."""
    asked = _plain(replace(config, max_segments=FULL))
    found = {}
    for path in sorted(training_runs.RUNS.glob(f"*/{CONFIG}")):
        payload = json.loads(path.read_text("utf-8"))
        same = payload.get("study") == STUDY and all(payload.get(name) == value for name, value in asked.items())
        if same and (path.parent / RESULT).exists():
            kept = recorded({key: value for key, value in payload.items() if key != "data"}, payload["data"])
            if kept is not None and kept.attrs["name"] in _other_seeds(spec):
                found[str(kept.attrs["name"])] = _from_dataset(kept)
    return found


def to_make(spec: str, config: DomainConfig) -> list[str]:
    """One sentence for each training seed that `others` lacks: which step is missing, and its command. None for domains
    of a reader's own."""
    if config.domains != ENGLISH:
        return []
    known, trained = others(spec, config), training_runs.records()
    return [_step(name, name in trained) for name in _other_seeds(spec) if name not in known]


def _step(name: str, trained: bool) -> str:
    record = f"`{_command(name)}` makes its record of this page, after which its weights can be deleted"
    if (models.MODELS / name / "config.json").exists():
        return f"{name} is trained and its weights are here: {record}."
    state = "is trained, but its weights were not kept" if trained else "is not trained yet"
    return f"{name} {state}: `mechanism train --config {name} --export {name}` makes them, then {record}."


def _other_seeds(spec: str) -> list[str]:
    return [name for name in SEEDS if name != Path(resolve(spec)).name]


def _to_dataset(found: DomainObservation, name: str) -> xr.Dataset:
    own = found.documents
    known = {s: getattr(own, s) for s in _SUMS if getattr(own, s) is not None}
    data: dict[str, Any] = {s: (("document", "layer", "expert"), values) for s, values in known.items()}
    data["tokens"] = ("document", own.tokens)
    coords = {"layer": list(own.layers), "domain": ("document", own.domain)}
    about = {"name": name, "lang": found.lang, "left_out": json.dumps(found.left_out)}
    return xr.Dataset(data, coords, about)


def _from_dataset(found: xr.Dataset) -> DomainObservation:
    known = {s: found[s].values.astype(np.float64) for s in _SUMS if s in found}
    layers = tuple(int(layer) for layer in found["layer"].values)
    documents = Documents(found["domain"].values.astype(str), found["tokens"].values, **known, layers=layers)
    return DomainObservation(documents, str(found.attrs["lang"]), json.loads(found.attrs["left_out"]))
