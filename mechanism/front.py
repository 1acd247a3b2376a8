"""Functions of the front door that take a model: what `load` gives, or a plain one of transformers."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import pandas as pd
from torch import nn

from . import trace
from .measure.evidence import Evidence
from .models.load import Loaded, as_loaded
from .report import provenance
from .report.record import Record, record
from .study.d_domains.driver_experts import Swept
from .study.d_domains.sweep import sweep as _sweep
from .study.embedded.evaluate import EvaluateConfig
from .study.embedded.evaluate import evaluate as _evaluate
from .trace.checks import Result

STUDIES = {
    "routing": "r_multilingual.routing",
    "steering": "r_multilingual.steering",
    "domains": "d_domains.domain_experts",
    "drivers": "d_domains.sweep",
    "reweighting": "d_domains.reweighting",
}
"""Module of each study that can be asked by name, below `mechanism.study`."""


def _bare(model: Loaded | nn.Module) -> nn.Module:
    return model.model if isinstance(model, Loaded) else model


def attach(
    model: Loaded | nn.Module, interventions: Sequence[trace.Intervention] = (), *, check: bool = True, **options: Any
) -> trace.Trace:
    """Watch, and on request edit, the routing of a model; see `mechanism.trace.attach`."""
    return trace.attach(_bare(model), interventions, check=check, **options)


def check(model: Loaded | nn.Module) -> list[Result]:
    """Whether a model's routing can be believed: the contracts, one by one; see `mechanism.trace.check`."""
    return trace.check(_bare(model))


def routers(model: Loaded | nn.Module) -> pd.DataFrame:
    """The routers of a model, a row a layer; see `mechanism.trace.routers`."""
    return trace.routers(_bare(model))


def sweep(model: Loaded | nn.Module, **asked: Any) -> Swept:
    """The causal effect of every expert: `sweep(lm, data="tech", modes=["zero"]).drivers()`.

    Args:
        asked: fields of `SweepConfig` (`data`, `languages`, `modes`, `max_segments`, ...), and the options of
            `mechanism.study.d_domains.sweep.sweep`, which says what it raises.
    """
    own = as_loaded(model)
    return _sweep(own.model, own.tokenizer, **asked)


def study(name: str, model: Loaded | nn.Module, profile: str = "auto", **options: Any) -> Any:
    """A study of a chapter on a model: `study("steering", lm, profile="small")`.

    Args:
        name: one of `STUDIES`.
        profile: see `mechanism.study.base.study.PROFILES`. A plain model may have been changed in memory, so no record
            is read or written for it: its profile is `small`.
        options: of the module's function `study`, which says what it gives and raises.

    Raises:
        ValueError: no such study, or a plain model under `full`.
    """
    if name not in STUDIES:
        raise ValueError(f"there is no study {name!r}: use {', '.join(STUDIES)}")
    if not isinstance(model, Loaded):
        if profile == "full":
            raise ValueError(
                "records are kept of models that `load` gives, whose weights are known, not of a plain one"
            )
        profile = "small"
    own = as_loaded(model)
    run = import_module(f"{__package__}.study.{STUDIES[name]}").study
    return run(own.model, own.tokenizer, own.spec, own.dtype, profile=profile, **options)


def evaluate(model: Loaded | nn.Module, **asked: Any) -> pd.DataFrame:
    """The task table of a model; `asked` are fields of `EvaluateConfig`, see `mechanism.study.embedded.evaluate`."""
    own = as_loaded(model)
    return _evaluate(own.model, own.tokenizer, EvaluateConfig(**asked))


def judge(claim: str, evidence: Evidence) -> Record:
    """The verdict on a claim of the report; nothing is written. See `mechanism.report.record.record`."""
    return record(claim, evidence, origin=provenance(), write=False)
