"""Routing in Mixture-of-Experts language models: watch it, edit it, measure it, judge claims about it.

    import mechanism as me

    lm = me.load("embedded")
    me.check(lm)
    with me.attach(lm, [me.Forbid(me.pairs(2, [0, 5]))]) as trace:
        lm("Datei öffnen.")

Names are imported when they are first used, so that `import mechanism` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .corpus.library import load as load_corpus
    from .corpus.store import Corpus, CorpusError
    from .front import attach, check, evaluate, judge, routers, study, sweep
    from .measure.consistency import Consistency
    from .measure.divergence import normalised_js
    from .measure.evidence import Evidence
    from .measure.paired_gain import PairedGain
    from .measure.statistics import ClusterBootstrap
    from .models.load import Loaded, ModelError, load
    from .nn.moe import SparseMoE, SparseMoEConfig
    from .nn.multihead import MultiHeadMoE, MultiHeadMoEConfig
    from .report import charts
    from .report.claims import load_claims
    from .study.base.study import Study
    from .trace import (
        Ablate,
        Activate,
        Deactivate,
        DenseModelError,
        Forbid,
        ForceSelection,
        Inside,
        Intervention,
        Replay,
        Route,
        RoutingStats,
        ScaleWeight,
        Served,
        SoftSteer,
        Trace,
        TraceError,
        expert_means,
        from_json,
        pairs,
        to_json,
    )

_HOMES = {
    "corpus.library": "load_corpus",
    "corpus.store": "Corpus CorpusError",
    "front": "attach check evaluate judge routers study sweep",
    "measure.consistency": "Consistency",
    "measure.divergence": "normalised_js",
    "measure.evidence": "Evidence",
    "measure.paired_gain": "PairedGain",
    "measure.statistics": "ClusterBootstrap",
    "models.load": "Loaded ModelError load",
    "nn.moe": "SparseMoE SparseMoEConfig",
    "nn.multihead": "MultiHeadMoE MultiHeadMoEConfig",
    "report": "charts",
    "report.claims": "load_claims",
    "study.base.study": "Study",
    "trace": (
        "Ablate Activate Deactivate DenseModelError Forbid ForceSelection Inside Intervention Replay Route "
        "RoutingStats ScaleWeight Served SoftSteer Trace TraceError expert_means from_json pairs to_json"
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}
_OTHER_NAMES = {"load_corpus": "load"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f".{_HOME[name]}", __name__)
    own = _OTHER_NAMES.get(name, name)
    found = getattr(home, own) if hasattr(home, own) else import_module(f"{home.__name__}.{own}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
