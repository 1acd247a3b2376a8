"""How task experts are steered (arXiv 2510.04694, eq. 3 to 5), and what is tried. A new method is one entry of
`METHODS`."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import xarray as xr

from ...measure.overlap import experts_above
from ...measure.profile import window
from ...trace import Activate, Deactivate, Intervention, InterventionError, SoftSteer
from ...trace.interventions import Targets
from ..base.trials import Setting, matched, targets_of


@dataclass(frozen=True)
class SteeringConfig:
    """What is tried.

    Attributes:
        taus: thresholds of the activation-frequency difference; strengths: of soft steering, in standard deviations of
            a token's router logits; hard: forcing as well.
        windows: parts of the depth that steering may act in; the defaults are the source's for Qwen3-30B-A3B and
            Phi-3.5-MoE, and the middle third. layers: decoder layers instead of windows.
        doses: strengths of the dose-response; draws: random sets of matched experts.
        widths: of the layer windows tried one after the other, in eighths of the depth.
        seed: of random sets and of ties between forced experts.
    """

    taus: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5)
    strengths: tuple[float, ...] = (0.5, 1.0)
    hard: bool = True
    windows: tuple[tuple[float, float], ...] = ((1 / 3, 2 / 3), (0.25, 0.55), (1 / 6, 0.75))
    layers: tuple[int, ...] | None = None
    doses: tuple[float, ...] = (-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0)
    draws: int = 50
    widths: tuple[int, ...] = (2, 4)
    seed: int = 0

    @property
    def most(self) -> tuple[int, int]:
        """How many settings are tried at most on the dev items, and on the test items; see `SteeringPlan`."""
        strengths = sum(len(method.strengths(self)) for method in METHODS.values())
        windows = 1 if self.layers else len(self.windows)
        parts = sum(9 - width for width in self.widths)
        others = len(self.doses) + parts + len(CONTROLS) - 1 + self.draws
        return 1 + strengths * windows * len(self.taus), 2 + others


@dataclass(frozen=True)
class Method:
    """A way of steering experts.

    Attributes:
        edit: the intervention on experts at a strength; a negative one steers downwards.
        strengths: those that are tried on dev items, the weakest first.
        forces: every expert takes a slot of every token: a layer has room for no more experts than slots, and only the
            sign of the strength counts.
    """

    edit: Callable[[Targets, float], Intervention]
    strengths: Callable[[SteeringConfig], Sequence[float]]
    forces: bool = False

    def shown(self, kind: str, strength: float) -> str:
        """The method under its name, with a strength, for tables."""
        return f"{kind}{', down' * (strength < 0)}" if self.forces else f"{kind} {strength:g}"


METHODS = {
    "soft": Method(
        lambda targets, strength: SoftSteer(targets, strength=strength),
        strengths=lambda config: sorted(config.strengths),
    ),
    "hard": Method(
        lambda targets, strength: Activate(targets) if strength > 0 else Deactivate(targets),
        strengths=lambda config: [1.0] if config.hard else [],
        forces=True,
    ),
}
"""Ways of steering by name, those that change least first."""
DOSED = "soft"
RANDOM = "random experts"
CONTROLS = ("earlier layers", "later layers", "all layers", "multilingual experts", RANDOM, "deactivation")
"""Controls of a chosen setting: one setting each but the random experts, which are many; see `SteeringPlan`."""


@dataclass(frozen=True)
class Steering:
    """Experts steered one way.

    Attributes:
        layers: where they were looked for; tau: threshold; kind: name of the method; strength: negative is
            downwards.
        targets: the experts; none at all is no edit.
    """

    layers: tuple[int, ...] = ()
    tau: float = float("nan")
    kind: str = DOSED
    strength: float = 0.0
    targets: Targets = ()

    def as_setting(self, role: str, name: str) -> Setting:
        """What is tried, with its labels."""
        edit = METHODS[self.kind].edit(self.targets, self.strength) if self.targets and self.strength else None
        labels = {"role": role, "name": name, "kind": self.kind, "tau": self.tau, "strength": self.strength}
        labels |= {"layers": " ".join(map(str, self.layers)), "experts": len(self.targets)}
        return Setting(labels | {"targets": " ".join(f"{layer}.{expert}" for layer, expert in self.targets)}, edit)


UNEDITED = Steering().as_setting("none", "none")


@dataclass(frozen=True)
class SteeringPlan:
    """The settings of a model, from what is found of its experts; see `expert_frequencies`."""

    found: xr.Dataset
    config: SteeringConfig

    @cached_property
    def layers(self) -> list[int]:
        """Decoder layers that route."""
        return [int(layer) for layer in self.found["layer"].values]

    def windows(self) -> list[tuple[int, ...]]:
        """Layers that steering may act in.

        Raises:
            InterventionError: a chosen layer without a router.
        """
        if self.config.layers is None:
            return self._within(self.config.windows)
        lacking = sorted(set(self.config.layers) - set(self.layers))
        if lacking:
            raise InterventionError(f"layers {lacking} have no router; routers are in layers {tuple(self.layers)}")
        return [self.config.layers]

    def _within(self, spans: Iterable[tuple[float, float]]) -> list[tuple[int, ...]]:
        """Routing layers whose centres lie in parts of the depth, each set once."""
        inside = [np.flatnonzero(window(self.found.attrs["depth"], *span)).tolist() for span in spans]
        return [own for own in dict.fromkeys(tuple(i for i in own if i in self.layers) for own in inside) if own]

    def grid(self) -> list[Steering]:
        """What is chosen from, that which changes least first. A set without experts, with more than half of a layer's,
        or with the experts of an earlier one is left out: it has no effect, no matched random set, or is the same."""
        found: dict[Any, Steering] = {}
        for kind, method in METHODS.items():
            for strength in method.strengths(self.config):
                for layers in self.windows():
                    for tau in sorted(self.config.taus, reverse=True):
                        one = self.steered(layers, Steering(tau=tau, kind=kind, strength=strength))
                        count = Counter(layer for layer, _ in one.targets)
                        if one.targets and 2 * max(count.values()) <= self.found.sizes["expert"]:
                            found.setdefault((kind, strength, one.targets), one)
        return list(found.values())

    def steered(
        self, layers: Sequence[int], way: Steering, difference: np.ndarray | None = None, fill: bool = False
    ) -> Steering:
        """The threshold and the way of steering in these layers, on task experts unless another difference is given.

        Args:
            fill: where no expert is above the threshold in any layer, the strongest of each stands in.
        """
        values = self.found["task_difference"].values if difference is None else difference
        inside = np.isin(self.layers, list(layers))[:, None]
        chosen = experts_above(values, way.tau) & inside
        if fill and not chosen.any():
            chosen = (values == values.max(1, keepdims=True)) & inside
        if METHODS[way.kind].forces and way.strength > 0:
            order = np.where(chosen, -values, np.inf).argsort(1, kind="stable").argsort(1, kind="stable")
            chosen &= order < self.found.attrs["top_k"]
        return replace(way, layers=tuple(layers), targets=targets_of(chosen, self.layers))

    def trials(self, chosen: Steering) -> list[Setting]:
        """What is tried on the test items once a setting has been chosen: other doses of it, the same in one window of
        layers after the other, controls, and matched random experts."""
        config = self.config
        eighths = [(a / 8, b / 8) for a, b in combinations(range(9), 2) if b - a in config.widths]
        drawn = matched(chosen.targets, self.layers, self.found["base_rate"].values, config.draws, config.seed)
        return [
            UNEDITED,
            chosen.as_setting("chosen", "chosen"),
            *(replace(chosen, kind=DOSED, strength=dose).as_setting("dose", f"{dose:g}") for dose in config.doses),
            *(self.steered(w, chosen).as_setting("window", f"{w[0]}-{w[-1]}") for w in self._within(eighths)),
            *(one.as_setting("control", name) for name, one in self.controls(chosen).items()),
            *(replace(chosen, targets=own).as_setting("random", str(draw)) for draw, own in enumerate(drawn)),
        ]

    def controls(self, chosen: Steering) -> dict[str, Steering]:
        """Earlier, later and all layers, multilingual experts in the same layers, and deactivation. Where no expert is
        above the threshold, the strongest of each layer stands in."""
        places = {
            "earlier layers": [layer for layer in self.layers if layer < min(chosen.layers)],
            "later layers": [layer for layer in self.layers if layer > max(chosen.layers)],
            "all layers": self.layers,
        }
        multilingual = self.found["language_difference"].max("code").values
        return {
            **{name: self.steered(layers, chosen, fill=True) for name, layers in places.items()},
            "multilingual experts": self.steered(chosen.layers, chosen, multilingual, fill=True),
            "deactivation": replace(chosen, strength=-chosen.strength),
        }
