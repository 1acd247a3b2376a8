"""Does a metric foretell which of a token's experts matters there? Metrics against experts taken from single tokens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Cell
from ...measure.seeds import Sampled, over_seeds
from .driver_experts import KINDS, Swept

OWN = MappingProxyType({"weight": "gate weight at the token", "size": "size of the output at the token"})
"""What a token itself shows of its experts: controls, in which the test must find something if it can."""
TOKEN = "the token itself"
EFFECTS: Mapping[str, Callable[[xr.Dataset], np.ndarray]] = MappingProxyType({
    "at the token": lambda text: text["probe_kl"].values,
    "at the token, logarithm": lambda text: np.log(np.maximum(text["probe_kl"].values, 1e-12)),
    "at the tokens that follow": lambda text: text["probe_later"].values,
})  # fmt: skip
"""Ways to count an effect, the one that is judged first."""
FEWEST = 10
BOUNDS = MappingProxyType({"0.23 (v2)": 0.23, "0.17 (v1)": 0.17})
"""Largest Cohen's d that the source saw, by its version."""


@dataclass(frozen=True, eq=False)
class Foretold:
    """Of each token and layer, the effect of taking away the expert that a metric ranks first among those that the
    token selects, less that of the one it ranks last: Cohen's d of the difference over tokens.

    Attributes:
        swept: the sweep; text: see `swept_text.observe`, with probes; effect: one of `EFFECTS`.
    """

    swept: Swept
    text: xr.Dataset
    effect: str = next(iter(EFFECTS))

    @property
    def probed(self) -> bool:
        """Whether experts were taken from single tokens."""
        return "probe_kl" in self.text

    @cached_property
    def kinds(self) -> pd.Series:
        """Kind of each metric by its name: of `KINDS`, or `TOKEN`."""
        every = {name: KINDS.get(name, "routing") for name in self.swept.metrics()}
        return pd.Series(every | dict.fromkeys(OWN.values(), TOKEN))

    @cached_property
    def differences(self) -> np.ndarray:
        """`(metric, probe, layer)`; NaN where the metric ranks no two experts of the token."""
        expert = self.text["probe_expert"].values.astype(np.int64)
        layer = np.arange(expert.shape[1])[:, None]
        metrics = [np.where(expert >= 0, values[layer, expert], np.nan) for values in self.swept.metrics().values()]
        metrics += [self.text[f"probe_{name}"].values for name in OWN]
        effects = EFFECTS[self.effect](self.text)
        return np.stack([_first_less_last(np.where(np.isnan(own), -np.inf, own), own, effects) for own in metrics])

    def d(self, times: np.ndarray | None = None) -> np.ndarray:
        """`(metric, layer)` Cohen's d, sequences counting so many times; 0 where nothing differs, or a metric ranks the
        experts of fewer than `FEWEST` tokens: the spread of so few says nothing."""
        weight = np.ones(self.swept.found.sizes["sequence"]) if times is None else times
        known = ~np.isnan(self.differences)
        values, each = np.where(known, self.differences, 0), weight[self.text["probe_sequence"].values]
        count, first, second = (np.einsum("p,mpl->ml", each, own) for own in (known * 1.0, values, values**2))
        mean = first / np.maximum(count, 1)
        spread = np.sqrt(np.maximum(second / np.maximum(count, 1) - mean**2, 0))
        tokens = (known & (each > 0)[:, None]).sum(1)
        return np.asarray(np.where((spread > 1e-12) & (tokens >= FEWEST), mean / np.where(spread > 0, spread, 1), 0))

    def best(self, kind: str = "routing", kept: np.ndarray | None = None) -> Sampled:
        """Cohen's d of the pair of metric and layer with the largest, of a kind: chosen on one half of the documents
        and taken on the other, both ways. Draws take documents anew.

        Args:
            kept: `(sequence,)` whether its tokens count; those of all sequences do without it.
        """
        effects, at = self.swept.kl("zero"), (self.kinds == kind).to_numpy()
        halves = tuple(half if kept is None else half * kept for half in effects.halves(self.swept.seed))

        def crossed(times: np.ndarray) -> float:
            first, second = (self.d(half * times)[at] for half in halves)
            return float(np.mean([_at_largest(first, second), _at_largest(second, first)]))

        draws = [crossed(times) for times in effects.resamples(self.swept.n_boot, self.swept.seed)]
        return Sampled(crossed(np.ones(len(effects.values))), np.array(draws), effects.n_documents, names=effects.names)


def _first_less_last(ranked: np.ndarray, metric: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """`(probe, layer)` from `(probe, layer, slot)`; -inf in `ranked` and NaN in the others mark empty slots."""
    first, last = (
        np.expand_dims(at, -1) for at in (ranked.argmax(-1), np.where(np.isnan(metric), np.inf, metric).argmin(-1))
    )
    value, effect = ([np.take_along_axis(own, at, -1)[..., 0] for at in (first, last)] for own in (metric, effects))
    return np.asarray(np.where(value[0] > value[1], effect[0] - effect[1], np.nan))


def _at_largest(chosen: np.ndarray, counted: np.ndarray) -> float:
    at = np.unravel_index(np.abs(chosen).argmax(), chosen.shape)
    return float(np.sign(chosen[at]) * counted[at])


def cells(swept: Swept, text: xr.Dataset) -> list[Cell]:
    """Other analyses of D7: ways to count an effect, kinds of metrics, tokens of all domains or of one, and the bounds
    of both versions of the source."""
    found = []
    for effect in EFFECTS:
        own = Foretold(swept, text, effect)
        for kind in pd.unique(own.kinds[own.kinds != TOKEN]):
            for domain, kept in swept.domains().items():
                evidence = over_seeds([own.best(kind, kept)])
                for version, bound in BOUNDS.items():
                    choices = {"effect": effect, "metrics": kind, "text": domain, "bound": version}
                    found.append(Cell(choices, evidence, bound))
    return found


def by_layer(models: Sequence[Foretold]) -> pd.DataFrame:
    """Cohen's d by metric (rows) and layer, mean over models."""
    first = models[0]
    values = np.mean([own.d() for own in models], 0)
    return pd.DataFrame(values, first.kinds.index, first.swept.layers).rename_axis("metric")


def by_kind(models: Sequence[tuple[Swept, xr.Dataset]]) -> pd.DataFrame:
    """`Foretold.best` over models: a row a kind of metric and way to count an effect."""
    rows = []
    for effect in EFFECTS:
        each = [Foretold(swept, text, effect) for swept, text in models]
        for kind in pd.unique(each[0].kinds):
            rows.append({"metrics": kind, "effect": effect, **over_seeds([own.best(kind) for own in each]).row()})
    return pd.DataFrame(rows)
