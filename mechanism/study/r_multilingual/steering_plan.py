"""What is tried when task experts are steered: the grid that is chosen from, and every trial on test items."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from ...measure.matching import MatchedExperts
from ...trace import Activate, Deactivate, Intervention, InterventionError, SoftSteer
from ...trace.interventions import Targets
from .expert_sets import ExpertFrequencies


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


@dataclass(frozen=True)
class Setting:
    """One way of steering.

    Attributes:
        role: `none`, `grid`, `chosen`, `dose`, `window`, `control` or `random`; name: which.
        layers: where; tau: threshold; kind: `soft` or `hard`; strength: its sign says up or down.
        targets: the experts; none at all is no edit.
    """

    role: str
    name: str
    layers: tuple[int, ...] = ()
    tau: float = float("nan")
    kind: str = "soft"
    strength: float = 0.0
    targets: Targets = ()

    @property
    def edit(self) -> Intervention | None:
        """The intervention, None where nothing is edited."""
        if not self.targets or self.strength == 0:
            return None
        if self.kind == "soft":
            return SoftSteer(self.targets, strength=self.strength)
        return Activate(self.targets) if self.strength > 0 else Deactivate(self.targets)


@dataclass(frozen=True)
class SteeringPlan:
    """The settings of a model, from the frequencies of its experts."""

    found: ExpertFrequencies
    config: SteeringConfig

    def grid(self) -> list[Setting]:
        """Settings that are chosen from, those that change least first. A setting without experts, with more than half
        of a layer's, or with the experts of an earlier one is left out: it has no effect, no matched random set, or is
        the same."""
        ways = [("soft", strength) for strength in sorted(self.config.strengths)]
        ways += [("hard", 1.0)] if self.config.hard else []
        settings: dict[Any, Setting] = {}
        for kind, strength in ways:
            for layers in self.windows():
                for tau in sorted(self.config.taus, reverse=True):
                    one = self.task("grid", "", layers, tau, kind, strength)
                    if one.targets and not self._crowded(one):
                        settings.setdefault(one.edit, one)
        return [replace(one, name=str(number)) for number, one in enumerate(settings.values())]

    def windows(self) -> list[tuple[int, ...]]:
        """Layers that steering may act in.

        Raises:
            InterventionError: a chosen layer without a router.
        """
        if self.config.layers is not None:
            lacking = sorted(set(self.config.layers) - set(self.found.layers))
            if lacking:
                raise InterventionError(f"layers {lacking} have no router; routers are in layers {self.found.layers}")
            return [self.config.layers]
        windows = dict.fromkeys(self.found.window(low, high) for low, high in self.config.windows)
        return [layers for layers in windows if layers]

    def task(self, role: str, name: str, layers: Sequence[int], tau: float, kind: str, strength: float) -> Setting:
        """Task experts above a threshold."""
        return self._setting(role, name, layers, tau, kind, strength, self.found.task)

    def _setting(
        self, role: str, name: str, layers: Sequence[int], tau: float, kind: str, strength: float,
        difference: np.ndarray, fill: bool = False,
    ) -> Setting:  # fmt: skip
        chosen = self.found.chosen(difference, tau, layers)
        if fill and not chosen.any():
            chosen = self.found.strongest(difference, layers)
        if kind == "hard" and strength > 0:
            chosen = self.found.limited(chosen, difference)
        return Setting(role, name, tuple(layers), tau, kind, strength, self.found.targets(chosen))

    def _crowded(self, setting: Setting) -> bool:
        layers = [layer for layer, _ in setting.targets]
        return 2 * max(map(layers.count, layers)) > self.found.base.shape[1]

    def trials(self, chosen: Setting) -> list[Setting]:
        """Everything that is tried on the test items once a setting has been chosen."""
        one = replace(chosen, role="chosen", name="chosen")
        doses = [replace(one, role="dose", name=f"{dose:g}", kind="soft", strength=dose) for dose in self.config.doses]
        return [Setting("none", "none"), one, *doses, *self.sweep(one), *self.controls(one), *self.random(one)]

    def sweep(self, chosen: Setting) -> list[Setting]:
        """The chosen threshold and strength in one window of layers after the other."""
        depth, eighth = self.found.depth, self.found.depth / 8
        spans = [(a, b) for a, b in combinations(range(9), 2) if b - a in self.config.widths]
        windows = dict.fromkeys(self.found.window(a * eighth / depth, b * eighth / depth) for a, b in spans)
        return [
            self.task("window", f"{layers[0]}-{layers[-1]}", layers, chosen.tau, chosen.kind, chosen.strength)
            for layers in windows
            if layers
        ]

    def controls(self, chosen: Setting) -> list[Setting]:
        """Earlier, later and all layers, multilingual experts in the same layers, and deactivation. Where no expert is
        above the threshold, the strongest of each layer stands in."""
        low, high = min(chosen.layers), max(chosen.layers)
        routed = self.found.layers
        places = {
            "earlier layers": [layer for layer in routed if layer < low],
            "later layers": [layer for layer in routed if layer > high],
            "all layers": list(routed),
        }
        way = (chosen.tau, chosen.kind, chosen.strength)
        found = [
            self._setting("control", name, layers, *way, self.found.task, fill=True) for name, layers in places.items()
        ]
        other = self.found.multilingual
        found.append(self._setting("control", "multilingual experts", chosen.layers, *way, other, fill=True))
        return [*found, replace(chosen, role="control", name="deactivation", strength=-chosen.strength)]

    def random(self, chosen: Setting) -> list[Setting]:
        """Matched random experts in place of the chosen ones."""
        rows = {layer: row for row, layer in enumerate(self.found.layers)}
        mask = np.zeros(self.found.base.shape, dtype=bool)
        for layer, expert in chosen.targets:
            mask[rows[layer], expert] = True
        sets = MatchedExperts(self.config.draws, seed=self.config.seed)(mask, self.found.base)
        return [
            replace(chosen, role="random", name=str(number), targets=self.found.targets(one))
            for number, one in enumerate(sets)
        ]
