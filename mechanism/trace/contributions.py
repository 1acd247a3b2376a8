"""What each expert contributes: its output on the tokens it serves, one slot at a time, by the model's own code."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .errors import InterventionError
from .passes import read_pass
from .sites import Site, find_sites


def slot_outputs(site: Site, hidden: Tensor, index: Tensor) -> Tensor:
    """Unweighted output of every selected expert: `(token, slot, d)`, such that the experts' output is
    `sum over slots of weight * output`.

    Args:
        hidden: `(token, d)` what the experts receive; index: `(token, slot)`.

    Raises:
        InterventionError: see `by_index`.
    """
    by_index(site)
    slots = index.shape[-1]
    rows = hidden.reshape(-1, hidden.shape[-1]).repeat_interleave(slots, 0)
    # An expert with two equal slots of weight 1 and 0: a single slot is squeezed away by experts with null classes.
    copies = 2 if site.classes > site.num_experts else 1
    flat = index.reshape(-1, 1).repeat(1, copies)
    weight = torch.zeros_like(flat, dtype=rows.dtype)
    weight[:, 0] = 1
    return site.experts.forward(rows, flat, weight).reshape(-1, slots, hidden.shape[-1])


def by_index(site: Site) -> None:
    """Refuse sites whose experts are not called with an index and weights (Llama 4, JetMoe).

    Raises:
        InterventionError: naming the router.
    """
    if site.kind not in ("standard", "block"):
        raise InterventionError(
            f"{site.name}: its experts are not called by index, single contributions cannot be read"
        )


def received(site: Site, args: tuple, kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, index and weight in a call of experts."""
    hidden, *rest = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
    slots = [t for t in rest if t.shape[-1] == site.top_k]
    index, weight = (next(t for t in slots if t.is_floating_point() == real) for real in (False, True))
    return hidden, index, weight


class ExpertsInput:
    """Hook: keeps what the experts of a site received last and gave back.

    Raises:
        InterventionError: see `by_index`.
    """

    def __init__(self, site: Site) -> None:
        by_index(site)
        self.site = site
        self.hidden = self.index = self.weight = self.output = torch.empty(0)
        self._handle = site.experts.register_forward_hook(self._seen, with_kwargs=True)

    def _seen(self, module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> None:
        self.hidden, self.index, self.weight = received(self.site, args, kwargs)
        self.output = output

    def remove(self) -> None:
        """Take the hook away."""
        self._handle.remove()


@contextmanager
def experts_inputs(sites: Iterable[Site]) -> Iterator[dict[int, ExpertsInput]]:
    """What the experts of each layer received and gave back in the last pass inside the block, by layer.

    Raises:
        InterventionError: see `by_index`.
    """
    seen: dict[int, ExpertsInput] = {}
    try:
        for site in sites:
            seen[site.layer] = ExpertsInput(site)
        yield seen
    finally:
        for hook in seen.values():
            hook.remove()


@torch.no_grad()
def expert_means(model: nn.Module, batches: Iterable[Mapping[str, Any]], first: int = 0) -> dict[int, Tensor]:
    """Mean output of every expert over the real tokens that selected it: layer -> `(class, d)` float32, for
    `Ablate(mode="mean")`. An expert that was never selected has no mean: NaN, and ablation refuses it.

    Args:
        batches: keyword arguments of the model's forward.
        first: position of the first real token of a sequence that counts; 1 leaves the token that opens it out.

    Raises:
        InterventionError: see `by_index`; or no batches.
    """
    sites = find_sites(model)
    sums: dict[int, Tensor] = {}
    counts: dict[int, Tensor] = {}
    with experts_inputs(sites) as seen:
        for batch in batches:
            at = read_pass(batch)
            model(**batch)
            for site in sites:
                counted = (at.mask & (at.position >= first)).reshape(-1)
                _add_means(site, seen[site.layer], counted, sums, counts)
    if not sums:
        raise InterventionError("mean outputs need at least one batch")
    return {layer: sums[layer] / counts[layer][:, None] for layer in sums}


def _add_means(
    site: Site, seen: ExpertsInput, real: Tensor, sums: dict[int, Tensor], counts: dict[int, Tensor]
) -> None:
    real = site.rows(real.to(seen.index.device))
    outputs = slot_outputs(site, seen.hidden, seen.index)[real].float()
    index = seen.index[real]
    if site.layer not in sums:
        sums[site.layer] = torch.zeros(site.classes, outputs.shape[-1], device=outputs.device)
        counts[site.layer] = torch.zeros(site.classes, device=outputs.device)
    sums[site.layer].index_add_(0, index.reshape(-1), outputs.flatten(0, 1))
    counts[site.layer].index_add_(0, index.reshape(-1), torch.ones(index.numel(), device=outputs.device))
