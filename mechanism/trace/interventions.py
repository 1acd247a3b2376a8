"""Interventions on routing, as frozen, hashable, JSON-serialisable data.

Three seams: router logits before the family's own rule (`SoftSteer`, `Activate`, `Deactivate`), the selection alone
(`ForceSelection`, `Forbid`), and the weights or contribution of what was selected (`ScaleWeight`, `Ablate`).
"""

import json
import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from .errors import InterventionError
from .host import to_device

Targets = tuple[tuple[int, int], ...]
if TYPE_CHECKING:
    _Targets: TypeAlias = Targets
    _Positions: TypeAlias = tuple[int, int | None] | None
    _Phase: TypeAlias = Literal["prefill", "decode"] | None
    _Word: TypeAlias = str | None
    _Number: TypeAlias = float
    _Flag: TypeAlias = bool
else:  # whatever users hand over is checked below, and refused in a sentence
    _Targets = _Positions = _Phase = _Flag = _Word = _Number = Any


def pairs(layers: Any, experts: Any) -> Targets:
    """Every (layer, expert) of the given layers and experts, each a whole number or several.

    >>> pairs(layers=2, experts=[0, 5])
    ((2, 0), (2, 5))
    """
    rows, columns = ([_index(i) for i in (own if _iterable(own) else [own])] for own in (layers, experts))
    return tuple((layer, expert) for layer in rows for expert in columns)


def _iterable(value: Any) -> bool:
    """Whether it holds several values; an array or tensor without axes is one number."""
    return hasattr(value, "__iter__") and not isinstance(value, str) and getattr(value, "ndim", 1) > 0


def _index(value: Any) -> int:
    """A whole number of Python, numpy or torch.

    Raises:
        InterventionError: anything else.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InterventionError(f"{value!r} is no whole number: layers, experts and positions are counted") from None


def _number(name: str, value: Any) -> float:
    """A finite number of Python, numpy or torch.

    Raises:
        InterventionError: anything else.
    """
    number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise InterventionError(f"{name} is {value!r}; a finite number is needed")
    return float(number)


@dataclass(frozen=True)
class Intervention:
    """What all interventions share.

    Attributes:
        targets: (layer, expert) pairs.
        positions: half-open range of positions it acts on, counted over a sequence's real tokens (padding has none);
            `(5, None)` is "from the sixth token on".
        phase: `prefill` or `decode`; both when None.
        where: name of a token mask handed over when attaching; all tokens when None.

    Raises:
        InterventionError: no targets, a repeated or negative one, an empty range, an unknown phase, or a value of
            another kind than its field's.
    """

    targets: _Targets
    positions: _Positions = None
    phase: _Phase = None
    where: _Word = None

    seam: ClassVar[str] = ""
    wants: ClassVar[bool | None] = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not all(_iterable(pair) and len(pair) == 2 for pair in self.targets):
            raise InterventionError(f"{name}: targets are (layer, expert) pairs, not {self.targets!r}")
        object.__setattr__(self, "targets", tuple((_index(layer), _index(expert)) for layer, expert in self.targets))
        self._check_fields(name)
        if not self.targets:
            raise InterventionError(f"{name} has no targets; give at least one (layer, expert)")
        if len(set(self.targets)) < len(self.targets):
            raise InterventionError(f"{name} names a (layer, expert) twice: {self.targets}")
        if min(min(pair) for pair in self.targets) < 0:
            raise InterventionError(f"{name} has a negative layer or expert: {self.targets}")
        if self.positions is not None:
            if not _iterable(self.positions) or len(self.positions) != 2:
                raise InterventionError(f"{name}: positions are (first, end), the end may be None: {self.positions!r}")
            start, stop = _index(self.positions[0]), None if self.positions[1] is None else _index(self.positions[1])
            object.__setattr__(self, "positions", (start, stop))
            if start < 0 or (stop is not None and stop <= start):
                raise InterventionError(f"{name}: positions {self.positions} are an empty or negative range")

    def _check_fields(self, name: str) -> None:
        """Words are among those that act, and numbers are finite ones of Python."""
        if self.phase not in (None, "prefill", "decode"):
            raise InterventionError(f"{name} has no phase {self.phase!r}; choose prefill, decode, or None for both")
        if not isinstance(self.where, str | None):
            raise InterventionError(f"{name}: where names a mask of `masks`, and is {self.where!r}")
        for own in fields(self):
            value = getattr(self, own.name)
            if isinstance(own.default, bool) and not isinstance(value, bool):
                raise InterventionError(f"{name}: {own.name} is {value!r}; True or False is needed")
            if isinstance(own.default, float):
                object.__setattr__(self, own.name, _number(f"{name}: {own.name}", value))

    def experts(self, layer: int) -> list[int]:
        """Targets in a layer."""
        return [e for at, e in self.targets if at == layer]

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        """Steering rule on float32 router logits `(token, class)`; the identity unless the seam is `logits`."""
        return logits


@dataclass(frozen=True)
class SoftSteer(Intervention):
    """`z_e <- z_e + strength * std(z)`, the standard deviation over a token's experts (arXiv 2510.04694, section 5)."""

    strength: _Number = 0.0
    seam: ClassVar[str] = "logits"

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        edited = logits.clone()
        edited[:, to_device(experts, logits.device)] += self.strength * logits.std(-1, correction=0, keepdim=True)
        return edited


def _ranks(count: int, seed: int, device: torch.device) -> Tensor:
    """A permutation of 1..count divided by count: distinct offsets, so that targets never tie among themselves."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return ((order + 1).float() / count).to(device, non_blocking=True)


@dataclass(frozen=True)
class Activate(Intervention):
    """`z_e <- max(z) + epsilon` (SteerMoE, arXiv 2509.09660). Several targets take distinct values in
    `(max, max + epsilon]`, in an order drawn from the seed. Where selection does not follow the logits it is translated
    into a selection, and `Trace.notes` says so."""

    epsilon: _Number = 0.01
    seam: ClassVar[str] = "logits"
    wants: ClassVar[bool | None] = True

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        edited = logits.clone()
        top = logits.amax(-1, keepdim=True)
        edited[:, to_device(experts, logits.device)] = top + self.epsilon * _ranks(len(experts), seed, logits.device)
        return edited


@dataclass(frozen=True)
class Deactivate(Intervention):
    """`z_e <- min(z) - epsilon` (SteerMoE, arXiv 2509.09660), ties and translation as in `Activate`."""

    epsilon: _Number = 0.01
    seam: ClassVar[str] = "logits"
    wants: ClassVar[bool | None] = False

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        edited = logits.clone()
        low = logits.amin(-1, keepdim=True)
        edited[:, to_device(experts, logits.device)] = low - self.epsilon * _ranks(len(experts), seed, logits.device)
        return edited


@dataclass(frozen=True)
class ForceSelection(Intervention):
    """The expert is selected, through group limits and bias correction, with the weight that the model itself gives it
    among the selected; the lowest-ranked other experts make room."""

    seam: ClassVar[str] = "selection"
    wants: ClassVar[bool | None] = True


@dataclass(frozen=True)
class Forbid(Intervention):
    """The expert is not selected; the next best takes its slot with the weight that the model itself gives it."""

    seam: ClassVar[str] = "selection"
    wants: ClassVar[bool | None] = False


@dataclass(frozen=True)
class ScaleWeight(Intervention):
    """`w_e <- factor * w_e` where the expert is selected; with `renormalise` the token's weights are scaled back to
    their former sum."""

    factor: _Number = 1.0
    renormalise: _Flag = False
    seam: ClassVar[str] = "weight"


@dataclass(frozen=True)
class Ablate(Intervention):
    """The expert's contribution is taken away.

    `zero`: its slot stays and contributes nothing. `reroute`: its logit is masked before the family's own rule, so the
    next best takes the slot and the weights are the rule's. `mean`: its output is replaced by its mean output, handed
    over when attaching (`expert_means`).
    """

    mode: Literal["zero", "reroute", "mean"] = "zero"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("zero", "reroute", "mean"):
            raise InterventionError(f"Ablate has no mode {self.mode!r}; choose zero, reroute or mean")

    @property
    def seam(self) -> str:  # type: ignore[override]
        """The seam depends on the mode."""
        return {"zero": "weight", "reroute": "logits", "mean": "output"}[self.mode]

    @property
    def wants(self) -> bool | None:  # type: ignore[override]
        """Rerouting demands that the expert is not selected."""
        return False if self.mode == "reroute" else None

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        if self.mode != "reroute":
            return logits
        # Finite: sparsemixer and soft caps turn an infinite logit into NaN. Half of float16's range.
        return logits.index_fill(1, to_device(experts, logits.device), -30_000.0)


KINDS = {c.__name__: c for c in (SoftSteer, Activate, Deactivate, ForceSelection, Forbid, ScaleWeight, Ablate)}


def to_json(interventions: Sequence[Intervention]) -> str:
    """Canonical JSON of a list of interventions."""
    payload = [{"kind": type(i).__name__, **asdict(i)} for i in interventions]
    return json.dumps(payload, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> list[Intervention]:
    """Interventions of `to_json`.

    >>> from_json(to_json([Forbid(pairs(2, 0))])) == [Forbid(((2, 0),))]
    True

    Raises:
        InterventionError: no list of objects, an unknown kind or field, or no targets; see `Intervention` for others.
    """
    try:
        payload = json.loads(text.removeprefix("\ufeff"))
    except json.JSONDecodeError as error:
        raise InterventionError(f"the interventions are no JSON: {error}") from None
    if not isinstance(payload, list) or not all(isinstance(entry, dict) for entry in payload):
        raise InterventionError('interventions are a list of objects: [{"kind": ..., "targets": [[layer, expert]]}]')
    found: list[Intervention] = []
    for entry in map(dict, payload):
        kind = entry.pop("kind", None)
        if kind not in KINDS:
            raise InterventionError(f"no intervention is called {kind!r}; known: {', '.join(KINDS)}")
        unknown = set(entry) - {f.name for f in fields(KINDS[kind])}
        if unknown:
            raise InterventionError(f"{kind} has no field {', '.join(sorted(unknown))}")
        if "targets" not in entry:
            raise InterventionError(f"{kind} names no targets: [[layer, expert], ...]")
        found.append(KINDS[kind](**entry))
    return found
