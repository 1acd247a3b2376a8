"""Interventions on routing, as frozen, hashable, JSON-serialisable data.

Three seams: router logits before the family's own rule (`SoftSteer`, `Activate`, `Deactivate`), the selection alone
(`ForceSelection`, `Forbid`), and the weights or contribution of what was selected (`ScaleWeight`, `Ablate`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .errors import InterventionError

Targets = tuple[tuple[int, int], ...]


def pairs(layers: int | Iterable[int], experts: int | Iterable[int]) -> Targets:
    """Every (layer, expert) of the given layers and experts.

    >>> pairs(layers=2, experts=[0, 5])
    ((2, 0), (2, 5))
    """
    layers = (layers,) if isinstance(layers, int) else tuple(layers)
    experts = (experts,) if isinstance(experts, int) else tuple(experts)
    return tuple((layer, expert) for layer in layers for expert in experts)


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
        InterventionError: no targets, a repeated or negative one, an empty range.
    """

    targets: Targets
    positions: tuple[int, int | None] | None = None
    phase: Literal["prefill", "decode"] | None = None
    where: str | None = None

    seam: ClassVar[str] = ""
    wants: ClassVar[bool | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple((int(layer), int(expert)) for layer, expert in self.targets))
        name = type(self).__name__
        if not self.targets:
            raise InterventionError(f"{name} has no targets; give at least one (layer, expert)")
        if len(set(self.targets)) < len(self.targets):
            raise InterventionError(f"{name} names a (layer, expert) twice: {self.targets}")
        if min(min(pair) for pair in self.targets) < 0:
            raise InterventionError(f"{name} has a negative layer or expert: {self.targets}")
        if self.positions is not None:
            start, stop = self.positions
            if start < 0 or (stop is not None and stop <= start):
                raise InterventionError(f"{name}: positions {self.positions} are an empty or negative range")

    def experts(self, layer: int) -> list[int]:
        """Targets in a layer."""
        return [e for at, e in self.targets if at == layer]

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        """Steering rule on float32 router logits `(token, class)`; the identity unless the seam is `logits`."""
        return logits


@dataclass(frozen=True)
class SoftSteer(Intervention):
    """`z_e <- z_e + strength * std(z)`, the standard deviation over a token's experts (arXiv 2510.04694, section 5)."""

    strength: float = 0.0
    seam: ClassVar[str] = "logits"

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        edited = logits.clone()
        edited[:, list(experts)] += self.strength * logits.std(-1, correction=0, keepdim=True)
        return edited


def _ranks(count: int, seed: int) -> Tensor:
    """A permutation of 1..count divided by count: distinct offsets, so that targets never tie among themselves."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return (order + 1).float() / count


@dataclass(frozen=True)
class Activate(Intervention):
    """`z_e <- max(z) + epsilon` (SteerMoE, arXiv 2509.09660). Several targets take distinct values in
    `(max, max + epsilon]`, in an order drawn from the seed. Where selection does not follow the logits it is translated
    into a selection, and `Trace.notes` says so."""

    epsilon: float = 0.01
    seam: ClassVar[str] = "logits"
    wants: ClassVar[bool | None] = True

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        edited = logits.clone()
        top = logits.amax(-1, keepdim=True)
        edited[:, list(experts)] = top + self.epsilon * _ranks(len(experts), seed).to(logits.device)
        return edited


@dataclass(frozen=True)
class Deactivate(Intervention):
    """`z_e <- min(z) - epsilon` (SteerMoE, arXiv 2509.09660), ties and translation as in `Activate`."""

    epsilon: float = 0.01
    seam: ClassVar[str] = "logits"
    wants: ClassVar[bool | None] = False

    def logits(self, logits: Tensor, experts: Sequence[int], seed: int) -> Tensor:
        edited = logits.clone()
        low = logits.amin(-1, keepdim=True)
        edited[:, list(experts)] = low - self.epsilon * _ranks(len(experts), seed).to(logits.device)
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

    factor: float = 1.0
    renormalise: bool = False
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
        edited = logits.clone()
        # Finite: sparsemixer and soft caps turn an infinite logit into NaN. Half of float16's range.
        edited[:, list(experts)] = -30_000.0
        return edited


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
        InterventionError: an unknown kind or field.
    """
    found: list[Intervention] = []
    for entry in map(dict, json.loads(text)):
        kind = entry.pop("kind", None)
        if kind not in KINDS:
            raise InterventionError(f"no intervention is called {kind!r}; known: {', '.join(KINDS)}")
        unknown = set(entry) - {f.name for f in fields(KINDS[kind])}
        if unknown:
            raise InterventionError(f"{kind} has no field {', '.join(sorted(unknown))}")
        entry["targets"] = tuple(map(tuple, entry["targets"]))
        if entry.get("positions") is not None:
            entry["positions"] = tuple(entry["positions"])
        found.append(KINDS[kind](**entry))
    return found
