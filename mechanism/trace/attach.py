"""The front door of the room: attach to a model, proven first."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from .capture import Trace
from .checks import require
from .interventions import Intervention


def attach(
    model: nn.Module, interventions: Sequence[Intervention] = (), *, check: bool = True, **options: Any
) -> Trace:
    """Watch, and on request edit, the routing of a mixture-of-experts model: `with attach(model) as trace: model(...)`.

    Args:
        model: a causal language model of transformers, or one of ours; every call of it inside the block is a pass.
        interventions: what to edit, applied seam by seam: logits, selection, weights.
        keep: keep full tensors of every pass (`Trace.records`, `Trace.dataset`).
        stats: streaming sums instead, or as well.
        masks: named token masks for interventions with `where`: tensors `(batch, pos)`, or functions of the token ids.
        means: layer -> `(class, d)` mean outputs for `Ablate(mode="mean")`.
        check: prove the quick contracts on this model first (once a model).
        seed: breaks ties of `Activate` and `Deactivate`.
        first: watch the routers from this decoder layer on; for passes that start there (`mechanism.trace.restart`).

    Raises:
        RouterError, AttachError, InterventionError, ContractError: see `mechanism.trace.errors`.
    """
    trace = Trace(model, interventions, **options)
    if check:
        require(model)
    return trace
