"""The inside of experts: gate, up, activation and output of each, from its own parameters and its own activation.

No implementation of transformers (`eager`, `batched_mm`, `grouped_mm`) keeps it. Here the rows that selected an expert
pass through that expert alone, and every time the contributions are compared with what the experts module gave: if they
do not add up to that, nothing is shown.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .contributions import received, slot_outputs
from .errors import CaptureError, InterventionError
from .seam import Routing
from .sites import Site

RELATIVE = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 4e-2, torch.float16: 1e-2}
"""Relative error that rounding may cause."""

_ROWS = 4096
"""Rows that pass through an expert at once."""

_STEP = 0.25

Parts = tuple[Tensor | None, Tensor, Tensor, Tensor]
"""`(gate, up, activation, output)` of an expert on rows: `(row, unit)`, the output `(row, d)`; no gate where experts
have none, up is then what their activation function receives."""
Expert = Callable[[int, Tensor], Parts]
"""An expert by number, on rows `(row, d)`."""


class Slots(NamedTuple):
    """Some slots of one expert: `at`, their numbers `token * slots + slot` among the kept tokens, what is inside, and
    `contribution`, weight times output. `parts` is None where the class computes nothing."""

    expert: int
    at: Tensor
    parts: Parts | None
    contribution: Tensor


def opener(site: Site) -> Callable[[], Expert]:
    """How the experts of a site are opened during a pass.

    Experts of another making may bring it along: a method `inside()` that gives an `Expert`.

    Raises:
        InterventionError: they are stored or called in a way that is not known, or it cannot be told which half of a
            fused projection is the gate.
    """
    experts: Any = site.experts
    if site.kind != "sorted" and callable(getattr(experts, "inside", None)):
        return experts.inside
    glu = getattr(experts, "mlp", None)
    fused = "gate_up_proj" if _matrices(experts, "gate_up_proj") else "up_proj"
    names = [p for p in (fused, "down_proj") if _matrices(experts, p)]
    if site.kind == "sorted" or (len(names) < 2 and not all(_matrices(glu, name) for name in ("w1", "v1", "w2"))):
        raise InterventionError(f"{site.name}: its experts ({type(experts).__name__}) cannot be read from inside")
    if len(names) < 2:
        return partial(_split, experts)
    transposed = bool(getattr(experts, "is_transposed", site.kind == "scores"))
    layout = _layout(site, experts.down_proj.shape[1 if transposed else 2]) if fused == "gate_up_proj" else None
    return partial(_fused, experts, layout, transposed)


def _matrices(owner: Any, name: str) -> bool:
    """Whether an attribute holds matrices as they are used; those of quantised and offloaded experts do not."""
    found = getattr(owner, name, None)
    return isinstance(found, Tensor) and found.dtype in RELATIVE and not found.is_meta


def _fused(experts: Any, layout: tuple[slice, slice] | None, transposed: bool) -> Expert:
    """Experts of transformers: matrices of all in one tensor, with `layout` those of gate and up too."""
    name = "up_proj" if layout is None else "gate_up_proj"
    matrices = {part: getattr(experts, part) for part in (name, "down_proj")}
    biases = {part: getattr(experts, f"{part}_bias", None) for part in matrices}

    def product(part: str, expert: int, x: Tensor) -> Tensor:
        matrix, bias = matrices[part][expert], biases[part]
        return F.linear(x, matrix.T if transposed else matrix, None if bias is None else bias[expert])

    def one(expert: int, rows: Tensor) -> Parts:
        inner = product(name, expert, rows)
        gate, up = (None, inner) if layout is None else (inner[:, layout[0]], inner[:, layout[1]])
        activation = experts.act_fn(inner) if layout is None else _activate(experts, inner)
        output = product("down_proj", expert, activation)
        return gate, up, activation, experts.post_expert_norm(output) if _normed(experts) else output

    return one


def _normed(experts: Any) -> bool:
    return bool(getattr(experts, "has_post_expert_norm", False))


def _split(experts: Any) -> Expert:
    """Experts of DBRX: matrices of all on top of one another."""
    glu = experts.mlp
    gates, ups, downs = (
        getattr(glu, name).view(experts.num_experts, -1, glu.hidden_size) for name in ("w1", "v1", "w2")
    )

    def one(expert: int, rows: Tensor) -> Parts:
        gate, up = F.linear(rows, gates[expert]), F.linear(rows, ups[expert])
        activation = glu.activation_fn(gate) * up
        return gate, up, activation, activation @ downs[expert]

    return one


def _activate(experts: Any, inner: Tensor) -> Tensor:
    if hasattr(experts, "_apply_gate"):
        return experts._apply_gate(inner)
    gate, up = inner.chunk(2, -1)
    return experts.act_fn(gate) * up


@torch.no_grad()
def _layout(site: Site, units: int) -> tuple[slice, slice]:
    """Where gate and up stand in a fused projection, found by trial: a unit's activation is linear in up alone."""
    generator = torch.Generator().manual_seed(0)
    given = (2 * torch.rand(1, 2 * units, generator=generator) - 1).to(site.experts.down_proj.device)  # type: ignore[arg-type]

    def bends(part: slice, gate: slice, at: float) -> bool:
        """Whether the activation is not linear in a part where the gate stands at some value."""
        steps = []
        for step in (-_STEP, 0, _STEP):
            x = given.clone()
            x[:, gate] = at
            x[:, part] += step
            steps.append(_activate(site.experts, x))
        low, middle, high = steps
        return bool((high - 2 * middle + low).norm() > 1e-2 * (high - low).norm())

    half = slice(None, units), slice(units, None)
    every = slice(None, None, 2), slice(1, None, 2)
    orders = (half, every, half[::-1], every[::-1])
    found = [(g, u) for g, u in orders if bends(g, g, 0.0) and not bends(u, g, 2 * _STEP)]
    if len(found) != 1:
        raise InterventionError(
            f"{site.name}: which half of the projection of its experts is the gate cannot be told from what they do"
        )
    return found[0]


class Received:
    """What the experts of a site received and gave in a pass, of some tokens.

    Args:
        routing: of the pass; args, kwargs, output: of the call of the experts; kept: `(row,)` bool.

    Attributes:
        index: `(row, slot)` selected classes; weight: the same shape, as used.
    """

    def __init__(self, site: Site, routing: Routing, args: tuple, kwargs: dict, output: Tensor, kept: Tensor) -> None:
        self.site, self.index, self.weight = site, routing.index[kept], routing.weight[kept]
        self.slots = self.index.shape[-1]
        if site.kind == "scores":  # a copy of the tokens for each expert, already multiplied with its score
            self.hidden = args[0].detach().reshape(site.num_experts, len(kept), -1)[:, kept]
            self.output = output.detach().reshape(site.num_experts, len(kept), -1)[:, kept].sum(0)
            self.used, self.factor = self.index, torch.ones_like(self.weight)
        else:
            hidden, used, weight = (t.detach() for t in received(site, args, kwargs))
            self.hidden = hidden.reshape(len(kept), -1)[kept]
            self.output = output.detach().reshape(len(kept), -1)[kept]
            self.used, self.factor = used[kept], weight[kept]

    def _rows(self, at: Tensor) -> Tensor:
        token = at // self.slots
        return self.hidden[token] if self.hidden.ndim == 2 else self.hidden[self.index.reshape(-1)[at], token]

    def slots_by_expert(self, expert: Expert) -> Iterator[Slots]:
        """All slots, expert by expert, in pieces of some thousand rows; one look at the device's values.

        Raises:
            CaptureError: when all are through, what they contribute is not what the experts gave.
        """
        flat, factor, used = (t.reshape(-1) for t in (self.index, self.factor, self.used))
        total = torch.zeros_like(self.output, dtype=torch.float32)
        size = torch.zeros(len(total), device=total.device)
        dtype, order = self.output.dtype, flat.argsort(stable=True)
        ends = [0, *flat.bincount(minlength=self.site.classes).cumsum(0).tolist()]
        for number, (start, end) in enumerate(pairwise(ends)):
            for at in order[start:end].split(_ROWS) if end > start else ():
                rows, parts = self._rows(at), None
                if number < self.site.num_experts:
                    parts = expert(number, rows)
                output = slot_outputs(self.site, rows, used[at, None])[:, 0] if parts is None else parts[-1]
                dtype = min(dtype, output.dtype, key=lambda d: torch.finfo(d).bits)
                contribution = (output * factor[at, None]).float()
                total.index_add_(0, at // self.slots, contribution)
                size.index_add_(0, at // self.slots, contribution.abs().amax(-1))
                yield Slots(number, at, parts, contribution)
        self._prove(total, size, RELATIVE[dtype])

    def _prove(self, total: Tensor, size: Tensor, tolerance: float) -> None:
        error = (
            float(((total - self.output.float()).abs().amax(-1) / size.clamp_min(1e-30)).max()) if len(total) else 0.0
        )
        if not error <= tolerance:
            raise CaptureError(
                f"{self.site.name}: what was found inside its experts is not what they gave (relative error "
                f"{error:.2g}, over {tolerance:g}); another hook may have changed their output"
            )
