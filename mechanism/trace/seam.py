"""The seam: how one mechanism watches and edits the routers of every family without knowing any gating rule.

A `TorchFunctionMode`, active only while a router runs, sees the one linear map that makes the logits and the one top-k
that selects. Everything else (softmax or sigmoid, correction bias, groups, renormalisation, scaling) is the family's
own code. Weights are read and rewritten where the experts receive them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .errors import CaptureError
from .sites import Site

_TOPK = {torch.topk, Tensor.topk}
_FILL = {torch.masked_fill, Tensor.masked_fill}
_MAX = {torch.max, Tensor.max}
_ARGMAX = {torch.argmax, Tensor.argmax}


@dataclass
class Selection:
    """What the selection seam adds: masks `(token, class)` or `(1, class)`, or None; and given selections, classes
    `(token, slot)` where `(token, 1)` says so."""

    force: Tensor | None = None
    forbid: Tensor | None = None
    given: tuple[Tensor, Tensor] | None = None

    def __bool__(self) -> bool:
        return self.force is not None or self.forbid is not None or self.given is not None

    def met(self, index: Tensor) -> Tensor:
        """`(token, 1)` whether selected classes `(token, slot)` are as wished already."""
        found = torch.ones_like(index[:, :1], dtype=torch.bool)
        if self.force is not None:
            force = self.force.expand(len(index), -1)
            found = found & (force.gather(1, index).sum(1, keepdim=True) == force.sum(1, keepdim=True))
        if self.forbid is not None:
            found = found & ~self.forbid.expand(len(index), -1).gather(1, index).any(1, keepdim=True)
        return found

    def apply(self, score: Tensor) -> Tensor:
        """Selection score with forced classes first and forbidden ones last."""
        width = score.shape[-1]
        if self.force is not None:
            score = torch.where(self.force[..., :width], torch.finfo(score.dtype).max / 4, score)
        if self.forbid is not None:
            score = score.masked_fill(self.forbid[..., :width], float("-inf"))
        return score

    def replaced(self, index: Tensor, slots: slice = slice(None)) -> Tensor:
        """Selected classes `(token, slot)` with the given ones in place of those of the rule."""
        if self.given is None:
            return index
        return torch.where(self.given[1], self.given[0][:, slots].to(index.dtype), index)

    def wanted(self, width: int) -> Tensor | None:
        """`(token, class)` classes that have to be selected."""
        if self.given is None:
            return None if self.force is None else self.force[..., :width]
        index, has = self.given
        return has.new_zeros(len(index), width).scatter(1, index.clamp_min(0), has.expand_as(index))


class RouterTap(TorchFunctionMode):
    """Active while a router runs: keeps the logits and the selected classes, and edits both when asked to.

    Args:
        site: the router's site.
        edit: rule on float32 logits `(token, class)`, or None.
        selection: what is forced and forbidden.
        wish: what is forced and forbidden, besides, for tokens where the edited logits do not bring it about.

    Attributes:
        unaided: `(token, slot)` what would be selected without the wish; None if there is none.
    """

    def __init__(
        self,
        site: Site,
        edit: Callable[[Tensor], Tensor] | None = None,
        selection: Selection | None = None,
        wish: Selection | None = None,
    ):
        super().__init__()
        self.site, self.edit, self.selection, self.wish = site, edit, selection or Selection(), wish or Selection()
        self.logits: Tensor | None = None
        self.selected: Tensor | None = None
        self.grouped, self.turn, self.followed = False, 0, False
        self.unaided: Tensor | None = None
        self.bypassed = False
        self._inside, self._hooks = False, list[Any]()

    def __enter__(self):
        if (gate := self.site.gate) is not None:
            self._hooks = [gate.register_forward_pre_hook(self._opens), gate.register_forward_hook(self._closes)]
        return super().__enter__()

    def __exit__(self, *error: Any):
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        return super().__exit__(*error)

    def _opens(self, module: nn.Module, args: tuple) -> None:
        self._inside = True

    def _closes(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        """The gate has run, and all that is wrapped around its matrix: its output is the logits."""
        self._inside = False
        return None if self.logits is not None else self.made(output)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.logits is None and not self._inside and self._makes_logits(func, args, kwargs):
            self.bypassed = self.site.gate is not None and any(self.site.gate.children())
            return self.made(func(*args, **kwargs))
        if self.site.kind == "capacity" and self.logits is not None:
            return self._best(func, args, kwargs)
        if self.logits is None or self.selected is not None:
            return func(*args, **kwargs)
        if func in _TOPK:
            if self._selects(args, kwargs):
                return self._topk(func, args, kwargs)
            self.grouped = True
        found = func(*args, **kwargs)
        return self._followed(func, args, kwargs, found) if self.selection or self.wish else found

    def _makes_logits(self, func: Callable, args: tuple, kwargs: dict) -> bool:
        """The linear map whose matrix has the gate's shape; a matmul with `out_dtype` is a fused variant of it."""
        if func is F.linear:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            return weight is self.site.weight or weight.shape == self.site.weight.shape
        return func in (torch.mm, torch.matmul) and "out_dtype" in kwargs

    def made(self, raw: Tensor) -> Tensor:
        """Keep raw logits `(..., columns)`; returns what the family's rule is to see."""
        flat, classes = raw.reshape(-1, raw.shape[-1]), self.site.classes
        if self.edit is not None:
            flat = torch.cat([self.edit(flat[:, :classes].float()).to(raw.dtype), flat[:, classes:]], -1)
        self.logits = flat[:, :classes].detach().float()
        return raw if self.edit is None else flat.view(raw.shape)

    def _selects(self, args: tuple, kwargs: dict) -> bool:
        """The top-k over the expert axis, not one over groups."""
        score, k = args[0], kwargs.get("k", args[1] if len(args) > 1 else None)
        width = score.shape[-1]
        return k == self.site.top_k and width in (self.site.columns, self.site.classes, self.site.num_experts)

    def _topk(self, func: Callable, args: tuple, kwargs: dict):
        if not self.selection and not self.wish:
            found = func(*args, **kwargs)
        else:
            score = args[0]
            index = self._chosen(self.selection, func, args, kwargs)
            if self.wish:
                self.unaided = index
                index = torch.where(self.wish.met(index), index, self._chosen(self.wish, func, args, kwargs))
            index, self.followed = self.selection.replaced(index), True
            index = index.view(*score.shape[:-1], -1)
            found = torch.return_types.topk((score.gather(-1, index), index))
        self.selected = found.indices.detach().reshape(-1, self.site.top_k)
        return found

    def _best(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """One class a token by the largest probability, which is its weight too."""
        if func in _ARGMAX and self.selected is None:
            score = args[0]
            index = func(*args, **kwargs).reshape(-1, 1)
            if self.selection or self.wish:
                index = self._topk(torch.topk, (score, 1), {}).indices.reshape(-1, 1)
            self.selected = index.detach()
            return index.view(score.shape[:-1])
        if func in _MAX and self.selected is not None and args[0].shape[-1:] == (self.site.classes,):
            index = self.selected.view(*args[0].shape[:-1], 1)
            return torch.return_types.max((args[0].gather(-1, index).squeeze(-1), index.squeeze(-1)))
        return func(*args, **kwargs)

    def _followed(self, func: Callable, args: tuple, kwargs: dict, found: Any) -> Any:
        """What else selects: a mask over groups does not reach classes that have to be selected, and given ones take
        the place of a maximum (sparsemixer, a slot at a time) and of a row in a table (hash layers)."""
        if self.grouped and func in _FILL and found.shape[-1] in (self.site.columns, self.site.classes):
            for own in (self.selection, self.wish):
                wanted = own.wanted(found.shape[-1])
                if wanted is not None:
                    wanted = wanted.expand(found.numel() // found.shape[-1], -1).view(found.shape)
                    found = torch.where(wanted, args[0], found)
        if self.selection.given is None:
            return found
        rows, k = self.selection.given[0].shape
        if func in _MAX and kwargs.get("keepdim") and args[0].shape == (rows, self.site.classes):
            self.turn += 1
            self.followed = self.turn == k
            index = found.indices
            if self.turn <= k:
                index = self.selection.replaced(index, slice(self.turn - 1, self.turn))
            return torch.return_types.max((args[0].gather(-1, index), index))
        if func is Tensor.__getitem__ and not args[0].is_floating_point() and found.shape == (rows, k):
            self.followed = True
            return self.selection.replaced(found)
        return found

    def _chosen(self, selection: Selection, func: Callable, args: tuple, kwargs: dict) -> Tensor:
        """`(token, slot)` classes that the top-k takes under a selection."""
        score = args[0].reshape(-1, args[0].shape[-1])
        return func(selection.apply(score), *args[1:], **kwargs).indices


@dataclass
class Routing:
    """What one router did in one pass, tokens flattened batch-major.

    Attributes:
        logits: `(token, class)` float32, as the family's own rule saw them.
        index: `(token, slot)` selected classes; weight: `(token, slot)` as the experts receive them.
    """

    logits: Tensor
    index: Tensor
    weight: Tensor


def tapped(call: Callable[[RouterTap], Any], tap: RouterTap) -> tuple[Any, RouterTap]:
    """Run a router under a tap."""
    with tap:
        output = call(tap)
    return output, tap


def refuse_nan(sites: Sequence[Site], peaks: Sequence[Tensor]) -> None:
    """Refuse logits that are not numbers.

    Args:
        peaks: the largest logit of each site, on the CPU.

    Raises:
        CaptureError: naming the first such router.
    """
    for site, peak in zip(sites, peaks, strict=True):
        if bool(peak.isnan()):
            raise CaptureError(f"{site.name}: router logits are NaN; the model's weights or inputs are broken")
