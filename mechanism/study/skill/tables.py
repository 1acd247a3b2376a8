"""What the records of the grid `skill` say: whether there is something to gain, what steering gains, and what it is
held against. Numbers are means over the clones of one model, then over the models of all seeds, with 95 % intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Evidence, NotTestable
from ...measure.seeds import Sampled, over_seeds
from ...measure.statistics import ClusterBootstrap
from ..r_multilingual import steering_results
from ..r_multilingual.steering_checks import DAMAGE
from ..r_multilingual.steering_plan import CONTROLS, RANDOM
from ..r_multilingual.steering_results import SteeringResults
from .grid import SkillGrid, SkillRun

ALONE = "English alone"
LAG = 15.0
"""Points by which clones must lag English for there to be something to gain."""
PIVOT = "en"


@dataclass(frozen=True)
class Skill:
    """Records of a cell of a grid."""

    grid: SkillGrid
    cell: str = ALONE

    @cached_property
    def runs(self) -> list[SkillRun]:
        """Those that are made and did not diverge, by seed."""
        return [run for run in self.grid.runs(self.cell) if run.usable]

    @property
    def whole(self) -> bool:
        """Whether every run of the cell is made."""
        return all(run.done for run in self.grid.runs(self.cell))

    def tables(self, name: str) -> list[xr.Dataset]:
        """A table of every run that has it; see `SkillWorkshop.measure`."""
        paths = [run.record / f"{name}.nc" for run in self.runs]
        return [xr.load_dataset(path) for path in paths if path.exists()]

    @cached_property
    def steered(self) -> dict[int, SteeringResults]:
        """What steering did, by seed; without the runs in which no expert passes any threshold."""
        paths = {run.train.seed: run.record / "steering.nc" for run in self.runs}
        return {seed: SteeringResults(xr.load_dataset(path)) for seed, path in paths.items() if path.exists()}

    def claims(self) -> dict[str, Evidence | str]:
        """Evidence on R6, R7 and R8 over the models of all seeds, or why there is none: as `NotTestable` where the runs
        are there and the situation of the source is not."""
        names, why = ("R6", "R7", "R8"), ""
        if not self.whole or not self.runs:
            why = f"not all runs of `{self.cell}` are there: `mechanism train --grid {self.grid.name}` makes them"
        elif len(self.steered) < len(self.runs):
            why = NotTestable("in some models no expert passes any threshold")
        elif failed := self.unmet():
            why = NotTestable(f"the situation of the source is not there: {failed}")
        return dict.fromkeys(names, why) if why else steering_results.claims(list(self.steered.values()))

    def unmet(self) -> str:
        """The prerequisite that fails; empty where both hold."""
        table = self.prerequisites()
        if len(table) and table["lag"].mean() < LAG:
            return f"clones lag English by {table['lag'].mean():.1f} points, and {LAG:g} are needed"
        if len(table) and len(often := table[table["selected, clones"] >= table["selected, English"]]):
            told = "{}: {selected, clones:.0f} % against {selected, English:.0f} %"
            each = ", ".join(told.format(seed, **row) for seed, row in often.iterrows())
            return f"tokens of clones select the task experts as often as those of English (seed {each})"
        return ""

    def prerequisites(self) -> pd.DataFrame:
        """A row per seed that was steered, in percent: share of exact answers on dev items in `English` and, mean over
        clones, `clones`; `lag`, their difference in points; how often a token of a solved problem selects a steered
        expert, `selected, English` and `selected, clones`."""
        rows = {}
        for run, found in zip(self.runs, self.tables("skill"), strict=True):
            own = self.steered.get(run.train.seed)
            if own is None:
                continue
            exact = 100 * found["exact"].sel(model="branch").mean("item").to_series()
            rate = 100 * self._rates(found, own)
            others = [name for name in exact.index if name != PIVOT]
            rows[run.train.seed] = {
                "English": exact[PIVOT], "clones": exact[others].mean(), "lag": exact[PIVOT] - exact[others].mean(),
                "selected, English": rate[PIVOT], "selected, clones": rate[others].mean(),
            }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("seed")

    @staticmethod
    def _rates(found: xr.Dataset, own: SteeringResults) -> pd.Series:
        """By language, how often a token selects one of the steered experts, mean over them."""
        pairs = [pair.split(".") for pair in str(own.data["targets"].values[own.chosen]).split()]
        layers = own.data["layer"].values.tolist()
        each = [found["rate"].isel(layer=layers.index(int(layer)), expert=int(e)).to_series() for layer, e in pairs]
        return pd.concat(each, axis=1).mean(axis=1)

    def by_language(self) -> pd.DataFrame:
        """By language, mean over seeds, in percent: `exact` answers and right `choices` on dev items, `before` and
        `after` the branch."""
        return self._mean(self._by_language(own) for own in self.tables("skill")).rename_axis("language")

    @staticmethod
    def _by_language(own: xr.Dataset) -> pd.DataFrame:
        right = 100 * own[["exact", "hits"]].mean("item")
        columns = {
            f"{told}, {when}": right[name].sel(model=model).to_series()
            for name, told in (("exact", "exact"), ("hits", "choice"))
            for model, when in (("base", "before"), ("branch", "after"))
        }
        return pd.DataFrame(columns)

    def routes(self) -> pd.DataFrame:
        """By language (`clones`, their mean, or `English`) and route: `accuracy` in percent, and what the route brings
        beside a model's own: `gain` in points and `margin` in nats, each with `low` and `high` behind its name."""
        tables, rows = self.tables("routes"), {}
        for told, pivot in (("clones", False), ("English", True)) if tables else ():
            hits, margins = ([_of(own[name], pivot).values for own in tables] for name in ("hits", "margin"))
            for at, route in enumerate(tables[0]["route"].values):
                rows[told, route] = {"accuracy": 100 * np.mean([own[at].mean() for own in hits])} | _beside(
                    {
                        "gain": [100 * (own[at] - own[0]) for own in hits],
                        "margin": [own[at] - own[0] for own in margins],
                    }
                )
        return pd.DataFrame(
            rows.values(), pd.MultiIndex.from_tuples(rows, names=["language", "route"]) if rows else None
        )

    def repaired(self) -> pd.DataFrame:
        """By push on the damaged router: `accuracy` in percent, `margin` in nats, and `recovered`, the share of the
        margin lost that is given back, with `low` and `high` behind its name. Random sets, pushed as strongly as the
        damage, are their mean, and the highest of each model."""
        tables, rows = self.tables("repair"), {}
        if not tables:
            return pd.DataFrame()
        role, strength = tables[0]["role"].values, tables[0]["strength"].values
        names = [
            "undamaged",
            f"damaged by {DAMAGE:g}",
            *(f"task experts, {s:g}" for s in strength[role == "task experts"]),
        ]
        places = dict(zip(names, ([int(at)] for at in np.flatnonzero(role != "random")), strict=True))
        places["random experts, mean"] = np.flatnonzero(role == "random").tolist()
        margins, hits = ([_of(own[name], True).values for own in tables] for name in ("margin", "hits"))
        pairs = [(own[role == "none"][0], own[role == "damaged"][0]) for own in margins]

        def row(each: list[list[int]]) -> dict[str, float]:
            chosen = [(own[at].mean(0), hit[at].mean()) for own, hit, at in zip(margins, hits, each, strict=True)]
            given = [(own - lost, whole - lost) for (own, _), (whole, lost) in zip(chosen, pairs, strict=True)]
            shown = {"accuracy": 100 * np.mean([hit for _, hit in chosen]), "margin": np.mean([m for m, _ in chosen])}
            return shown | _beside({"recovered": given})

        rows = {name: row([at] * len(tables)) for name, at in places.items()}
        drawn = places["random experts, mean"]
        rows["random experts, highest"] = row([[drawn[int(own[drawn].mean(1).argmax())]] for own in margins])
        return pd.DataFrame.from_dict(rows, orient="index")

    def by_weight(self) -> pd.DataFrame:
        """By control: gain in points over no edit, mean over clones, `as strong` (one standard deviation) and `as
        heavy`: with the strength at which it moves as much routing weight as the chosen experts do at one, NaN where no
        strength does in one of the models; `moved`, that weight in percent, at one. Gains have `low` and `high` behind
        their names."""
        curves = [self._curves(own) for own in self.tables("weight")]
        rows = {}
        for name in ("chosen", *CONTROLS) if curves else ():
            each = [(one[name], one["chosen"].moved_at(1.0)) for one in curves]
            rows[name] = {"moved": 100 * np.mean([own.moved_at(1.0) for own, _ in each])} | _beside(
                {
                    "as strong": [own.at_strength(1.0) for own, _ in each],
                    "as heavy": [own.at_moved(w) for own, w in each],
                }
            )
        return pd.DataFrame.from_dict(rows, orient="index")

    @staticmethod
    def _curves(own: xr.Dataset) -> dict[str, "_Curve"]:
        gain = 100 * _of(own["hits"] - own["hits"].isel(setting=0), False)
        names = [RANDOM if name.startswith(RANDOM) else name for name in own["name"].values.astype(str)]
        strength, moved = np.abs(own["strength"].values), own["moved"].values
        curves = {}
        for name in dict.fromkeys(names[1:]):
            at = [np.flatnonzero((np.array(names) == name) & (strength == one)) for one in np.unique(strength[1:])]
            curves[name] = _Curve(
                np.unique(strength[1:]),
                np.array([0.0, *(moved[own].mean() for own in at)]),
                np.stack([np.zeros(gain.sizes["item"]), *(gain.values[own].mean(0) for own in at)]),
            )
        return curves

    def cost(self) -> pd.DataFrame:
        """What the chosen setting and random sets (mean) change: `loss`, nats per token of running text, and `exact`,
        points of exact answers, in `clones` (mean over them) and in `English`; each with `low` and `high`."""
        texts, answers, rows = self.tables("cost"), self.tables("generated"), {}
        for role in ("chosen", "random") if texts else ():
            told = {}
            for language, pivot in (("clones", False), ("English", True)):
                for name, tables, of, scale in (("loss", texts, "nll", 1), ("exact", answers, "exact", 100)):
                    each = [(own["role"].values == role, scale * _of(own[of], pivot).values) for own in tables]
                    told[f"{name}, {language}"] = [values[at].mean(0) - values[0] for at, values in each]
            rows[role] = _beside(told)
        return pd.DataFrame.from_dict(rows, orient="index")

    @staticmethod
    def _mean(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
        each = list(tables)
        return sum(each[1:], each[0]) / len(each) if each else pd.DataFrame()


class _Curve(NamedTuple):
    """What a control gains, item by item, by strength.

    Attributes:
        strength: those tried; moved: routing weight by strength, gain: `(strength, item)`; both begin with no edit.
    """

    strength: np.ndarray
    moved: np.ndarray
    gain: np.ndarray

    def moved_at(self, strength: float) -> float:
        """Weight that a strength moves."""
        return float(self.moved[1:][self.strength == strength][0])

    def at_strength(self, strength: float) -> np.ndarray:
        """Gain of each item."""
        return np.asarray(self.gain[1:][self.strength == strength][0])

    def at_moved(self, weight: float) -> np.ndarray | None:
        """Gain of each item between the two strengths that move less and more; None where none moves so much."""
        if weight > self.moved.max():
            return None
        above = int(np.argmax(self.moved >= weight))
        if above == 0:
            return np.asarray(self.gain[0])
        part = (weight - self.moved[above - 1]) / (self.moved[above] - self.moved[above - 1])
        return np.asarray((1 - part) * self.gain[above - 1] + part * self.gain[above])


def _of(values: xr.DataArray, pivot: bool) -> xr.DataArray:
    """Of the pivot, or the mean over the other languages."""
    values = values.astype(np.float64)
    return values.sel(lang=PIVOT) if pivot else values.drop_sel(lang=PIVOT).mean("lang")


def _beside(columns: Mapping[str, Sequence[np.ndarray | tuple[np.ndarray, np.ndarray] | None]]) -> dict[str, float]:
    """Each column's mean over models with its interval, `low` and `high` behind its name: seeds are resampled, then
    items, the same for all; NaN where one of the models has no value, and no interval where it is exact.

    Args:
        columns: by name, a value for each item of each model; or a numerator and a denominator, whose means over models
            make the ratio: what a model has is linear in both, so that a small denominator of one makes no large ratio.
    """
    draw, row = ClusterBootstrap(), {}
    for name, models in columns.items():
        row |= dict.fromkeys((name, f"{name}, low", f"{name}, high"), np.nan)
        pairs = [own if isinstance(own, tuple) else (own, np.ones(len(own))) for own in models if own is not None]
        if len(pairs) < len(models):
            continue
        over, under = (np.mean([own[side].mean() for own in pairs]) for side in (0, 1))
        ratio = over / under
        parts = [ratio + (top - ratio * bottom) / under for top, bottom in pairs]
        found = over_seeds([Sampled(float(own.mean()), draw.draws(own), len(own)) for own in parts])
        row[name] = found.estimate
        if found.high - found.low > 1e-12:
            row |= {f"{name}, low": found.low, f"{name}, high": found.high}
    return row
