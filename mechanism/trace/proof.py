"""Whether, and how, a model can go on from after a routed layer: tried on the model, against whole passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from .capture import Trace
from .continuation import CleanPass, Via
from .errors import TraceError
from .inner import RELATIVE
from .interventions import Ablate
from .reach import selecting, spread, touched
from .sites import Site, find_sites

_FAILURES = (TraceError, RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError)


@dataclass(frozen=True)
class Way:
    """How a model can be continued.

    Attributes:
        via: for each mode of ablation that it works for, what `CleanPass.go_on` is told.
        plain: the head's output is the logits as they are.
        reasons: why it does not work, for the other modes.
    """

    via: Mapping[str, Via]
    plain: bool
    reasons: Mapping[str, str]


def naive_logits(
    model: nn.Module, ids: Tensor, mask: Tensor, edit: Ablate, means: Mapping[int, Tensor] | None = None
) -> Tensor:
    """Logits `(batch, pos, vocabulary)` of a whole pass under an ablation."""
    with Trace(model, [edit], keep=False, means=means), torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits


def proven(
    model: nn.Module, ids: Tensor, mask: Tensor, modes: Sequence[str], means: Mapping[int, Tensor] | None = None,
    first: int = 0,
) -> Way:  # fmt: skip
    """Ablate the most used expert of every routed layer on the beginning of a batch, both ways, in every mode.

    Restarts may differ from whole passes by rounding, as passes of another shape do: by a ten-thousandth (in float32)
    of the largest change of any logit, and a hundred-thousandth of the largest logit.

    Args:
        ids, mask: `(batch, pos)`, padding on the right; its first two sequences are used, the second cut short.
        first: position of the first token on which experts are ablated.
    """
    ids, mask = _beginning(ids, mask)
    sites = find_sites(model)
    via: dict[str, Via] = {}
    try:
        clean = CleanPass(model, ids, mask, sites, first=first)
    except _FAILURES as error:
        return Way({}, False, dict.fromkeys(modes, _sentence(error)))
    reasons = {}
    for mode in modes:
        for one in get_args(Via):
            why = _refuted(clean, mode, one, means)
            if why is None:
                via[mode] = one
                break
            reasons[mode] = why
    return Way(via, bool(via) and _plain(clean, via), {m: why for m, why in reasons.items() if m not in via})


def _beginning(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    length = min(24, int(mask[:2].sum(1).min()))
    rows = torch.arange(2, device=ids.device) % len(ids)
    ids, mask = ids[rows, :length], mask[rows, :length].clone()
    mask[1, length - length // 4 :] = 0
    return ids, mask


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _refuted(clean: CleanPass, mode: str, via: Via, means: Mapping[int, Tensor] | None) -> str | None:
    """Why a way does not work; None if nothing speaks against it."""
    for site in clean.sites.values():
        try:
            error, change, scale = _errors(clean, site, mode, via, means)
        except _FAILURES as failure:
            return _sentence(failure)
        tolerance = RELATIVE[clean.logits.dtype]
        if not error <= tolerance * change + 0.1 * tolerance * scale:
            return f"layer {site.layer}: restarting is off by {error:.2g} where ablation changes logits by {change:.2g}"
    return None


def _errors(
    clean: CleanPass, site: Site, mode: str, via: Via, means: Mapping[int, Tensor] | None
) -> tuple[float, float, float]:
    """Largest error of a restart, largest change that it is to show, and largest logit, over real tokens."""
    layer, real = site.layer, clean.mask != 0
    used = clean.index[layer][clean.acts].flatten()
    expert = int(used[used < site.num_experts].bincount().argmax())
    edit = Ablate(((layer, expert),), mode=mode, positions=(clean.first, None))  # type: ignore[arg-type]
    wanted = naive_logits(clean.model, clean.ids, clean.mask, edit, means)
    rows = torch.tensor([1, 0, 1], device=clean.ids.device)  # out of order and repeated, as sequences are folded
    experts = torch.full_like(rows, expert)
    chosen = touched(clean, layer, selecting(clean, layer, experts, rows)) & real[rows]
    change = clean.change(layer, mode, None if means is None else means[layer])
    found = clean.logits[rows]
    found[chosen] = clean.go_on(layer, rows, spread(clean, layer, change, experts, rows), chosen, via)
    clean.forget(layer)
    sizes = (found - wanted[rows], (wanted - clean.logits)[rows], clean.logits[rows])
    error, moved, scale = (float(size[real[rows]].float().abs().max()) for size in sizes)
    return error, moved, scale


def _plain(clean: CleanPass, via: Mapping[str, Via]) -> bool:
    """Whether the head alone, a linear map, makes the logits."""
    if not isinstance(clean.head, nn.Linear):
        return False
    layer = next(iter(clean.sites))
    rows = torch.arange(len(clean.ids), device=clean.ids.device)
    nothing = torch.zeros_like(clean._experts[layer].output).reshape(len(rows), -1)
    try:
        with torch.no_grad():
            same = torch.equal(clean.head(clean.received), clean.logits)
        hidden = clean.go_on(layer, rows, nothing, clean.mask != 0, next(iter(via.values())), head=False)
    except _FAILURES:
        return False
    return same and bool(torch.allclose(hidden, clean.received[clean.mask != 0], rtol=1e-2, atol=1e-3))
