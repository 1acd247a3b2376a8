"""The contract list and its runner.

The quick contracts run when capture attaches, once a model; all of them run with `mechanism contracts MODEL`.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import nn

from . import contracts, contribution_contracts
from .errors import ContractError, InterventionError, TraceError
from .expect import NotApplicable
from .probe import Probe
from .sites import describe_sites, find_sites


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
    contribution_contracts.block_adds_experts,
    contribution_contracts.zero_ablation_removes,
    contribution_contracts.mean_ablation_replaces,
    contracts.unused_has_no_effect,
    contracts.padding_is_not_routed,
    contracts.generation_is_told_apart,
    contracts.restored_after_error,
    contracts.implementations_agree,
)


def check(model: nn.Module, chosen: Sequence[Contract] = FULL) -> list[Result]:
    """Run contracts on a model, in evaluation mode; its mode is restored.

    Raises:
        TraceError: the model cannot be observed at all.
    """
    training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            probe = Probe(model)
            return [_run(contract, probe) for contract in chosen]
    finally:
        model.train(training)


def _run(contract: Contract, probe: Probe) -> Result:
    try:
        contract(probe)
    except InterventionError as error:
        return Result(contract.__name__, "refused", str(error))
    except NotApplicable as error:
        return Result(contract.__name__, "void", str(error))
    except (TraceError, RuntimeError, ValueError, NotImplementedError) as error:
        return Result(contract.__name__, "failed", f"{type(error).__name__}: {error}".splitlines()[0])
    return Result(contract.__name__, "passed")


def routers(model: nn.Module) -> pd.DataFrame:
    """The routers of a model as a table, one row a layer: facts of its modules, and the rule it was seen to follow
    (`scoring`, `normalised`, `scale` of the weights' sum, `selection` by the logits or corrected by bias, groups or
    table).

    Raises:
        RouterError: no routers, or one that cannot be understood.
    """
    training = model.training
    model.eval()
    try:
        rules = Probe(model).rules()
    finally:
        model.train(training)
    rows = [{**row, **asdict(rules[row["layer"]])} for row in describe_sites(find_sites(model))]
    return pd.DataFrame(rows).set_index("layer")


_PROVEN: "weakref.WeakKeyDictionary[nn.Module, tuple]" = weakref.WeakKeyDictionary()


def _setting(model: nn.Module) -> tuple:
    """What a proof holds for: it is repeated after a change of dtype, device or implementation."""
    config, first = getattr(model, "config", None), next(model.parameters())
    chosen = [getattr(config, f"_{part}_implementation", None) for part in ("experts", "attn")]
    return (first.dtype, first.device, *map(str, chosen))


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
