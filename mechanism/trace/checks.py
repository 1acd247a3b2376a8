"""The contract list, its runner, and `attach`, which proves first.

The quick contracts run when capture attaches, once a model; all of them run with `mechanism contracts MODEL`.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from . import contracts, contribution_contracts, replay_contracts
from .capture import Trace
from .errors import ContractError, InterventionError
from .interventions import Intervention
from .probe import NotApplicable, Probe


@dataclass(frozen=True)
class Result:
    """Outcome of one contract: `passed`, `refused` (the router has no such feature, and says so when it is used),
    `void` (the contract says nothing about this model) or `failed`; with the reason."""

    contract: str
    status: str
    detail: str = ""


Contract = Callable[[Probe], None]
QUICK: tuple[Contract, ...] = (
    contracts.observed_identical,
    contracts.logits_are_raw,
    contracts.selection_is_whole,
    contracts.weights_follow_logits,
    contracts.zero_edits_identical,
)
FULL: tuple[Contract, ...] = (
    *QUICK,
    contracts.activation_activates,
    contracts.deactivation_deactivates,
    contracts.force_forces,
    contracts.forbid_forbids,
    contracts.reroute_reroutes,
    contribution_contracts.output_is_sum,
    contribution_contracts.inside_adds_up,
    contribution_contracts.block_adds_experts,
    contribution_contracts.zero_ablation_removes,
    contribution_contracts.mean_ablation_replaces,
    contracts.unused_has_no_effect,
    contracts.padding_is_not_routed,
    contracts.generation_is_told_apart,
    replay_contracts.own_route_identical,
    replay_contracts.other_route_followed,
    contracts.restored_after_error,
    contracts.implementations_agree,
)


def check(model: nn.Module, chosen: Sequence[Contract] = FULL) -> list[Result]:
    """Run contracts on a model, in evaluation mode; its mode is restored.

    Raises:
        TraceError: the model cannot be observed at all.
    """
    with _probed(model) as probe:
        return [_run(contract, probe) for contract in chosen]


@contextmanager
def _probed(model: nn.Module) -> Iterator[Probe]:
    """A model in evaluation mode, probed; its mode and torch's random numbers are restored."""
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield Probe(model)
    finally:
        model.train(training)


def _run(contract: Contract, probe: Probe) -> Result:
    try:
        contract(probe)
    except InterventionError as error:
        return Result(contract.__name__, "refused", str(error))
    except NotApplicable as error:
        return Result(contract.__name__, "void", str(error))
    except Exception as error:  # of whatever a model, or what wraps it, raises
        return Result(contract.__name__, "failed", f"{type(error).__name__}: {error}".splitlines()[0])
    return Result(contract.__name__, "passed")


def routers(model: nn.Module) -> pd.DataFrame:
    """The routers of a model as a table, one row a layer: facts of its modules, and the rule it was seen to follow
    (`scoring`, `normalised`, `scale` of the weights' sum, `selection` by the logits or corrected by bias, groups or
    table).

    Raises:
        RouterError: no routers, or one that cannot be understood.
    """
    with _probed(model) as probe:
        rows = [
            {
                "layer": s.layer, "router": s.path, "class": type(s.router).__name__, "experts": s.num_experts,
                "classes": s.classes, "top_k": s.top_k, "shared": ", ".join(s.shared), "kind": s.kind, **asdict(rule),
            }
            for s, rule in zip(probe.sites, probe.rules().values(), strict=True)
        ]  # fmt: skip
    return pd.DataFrame(rows).set_index("layer")


_PROVEN: "weakref.WeakKeyDictionary[nn.Module, tuple]" = weakref.WeakKeyDictionary()


def _setting(model: nn.Module) -> tuple:
    """What a proof holds for: it is repeated after a change of dtype, device, implementation or modules."""
    config, first = getattr(model, "config", None), next(model.parameters())
    chosen = [getattr(config, f"_{part}_implementation", None) for part in ("experts", "attn")]
    modules = sum(1 for _ in model.modules())  # an adapter adds some
    return (first.dtype, first.device, modules, *map(str, chosen))


def require(model: nn.Module) -> None:
    """Prove the quick contracts, once a model and setting.

    Raises:
        ContractError: naming the first that failed.
    """
    if _PROVEN.get(model) == _setting(model):
        return
    for result in check(model, QUICK):
        if result.status == "failed":
            raise ContractError(f"{type(model).__name__} breaks {result.contract}: {result.detail}")
    _PROVEN[model] = _setting(model)


def attach(
    model: nn.Module, interventions: Intervention | Sequence[Intervention] = (), *, check: bool = True, **options: Any
) -> Trace:
    """Watch, and on request edit, the routing of a mixture-of-experts model: `with attach(model) as trace: model(...)`.

    Args:
        model: a causal language model of transformers, or one of ours; every call of it inside the block is a pass.
        interventions: what to edit, applied seam by seam: logits, selection, weights.
        keep: keep full tensors of every pass (`Trace.records`, `Trace.dataset`).
        stats: streaming sums instead, or as well.
        inside: what to look at inside the experts (`Inside`): statistics by expert, and chosen tokens in full.
        masks: named token masks for interventions with `where`: tensors `(batch, pos)`, or functions of the token ids.
        means: layer -> `(class, d)` mean outputs for `Ablate(mode="mean")`.
        check: prove the quick contracts on this model first (once a model).
        seed: breaks ties of `Activate` and `Deactivate`.
        replay: a recorded route to follow (`Route`, or `Replay` for how).
        first: watch the routers from this decoder layer on; for passes that start there (`mechanism.trace.restart`).

    Raises:
        RouterError, AttachError, InterventionError, ContractError: see `mechanism.trace.errors`.
    """
    trace = Trace(model, interventions, **options)
    if check:
        require(model)
    return trace
