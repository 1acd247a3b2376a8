"""What the records of the grid `skill` say: whether there is something to gain, what steering gains, and what it is
held against. A row of a table is a mean over the clones of one model, then over models of all seeds."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Evidence
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
        """Evidence on R6, R7 and R8 over the models of all seeds, or why there is none."""
        names, why = ("R6", "R7", "R8"), ""
        if not self.whole or not self.runs:
            why = f"not all runs of `{self.cell}` are there: `mechanism train --grid {self.grid.name}` makes them"
        elif len(self.steered) < len(self.runs):
            why = "in some models no expert passes any threshold"
        elif failed := self.unmet():
            why = f"the situation of the source is not there: {failed}"
        return dict.fromkeys(names, why) if why else steering_results.claims(list(self.steered.values()))

    def unmet(self) -> str:
        """The prerequisite that fails; empty where both hold."""
        table = self.prerequisites()
        if len(table) and table["lag"].mean() < LAG:
            return f"clones lag English by {table['lag'].mean():.1f} points, and {LAG:g} are needed"
        if len(table) and (table["selected, clones"] >= table["selected, English"]).any():
            return "clones select the task experts of English as often as English does"
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
        """By route: accuracy in percent and margin in nats, mean over clones, and of English."""
        return self._mean(self._routes(own) for own in self.tables("routes"))

    @staticmethod
    def _routes(own: xr.Dataset) -> pd.DataFrame:
        others = [name for name in own["lang"].values if name != PIVOT]
        mean = own.mean("item")
        columns = {
            "accuracy, clones": 100 * mean["hits"].sel(lang=others).mean("lang"),
            "margin, clones": mean["margin"].sel(lang=others).mean("lang"),
            "accuracy, English": 100 * mean["hits"].sel(lang=PIVOT),
            "margin, English": mean["margin"].sel(lang=PIVOT),
        }
        return pd.DataFrame({name: values.to_series() for name, values in columns.items()})

    def repaired(self) -> pd.DataFrame:
        """By push on the damaged router: accuracy in percent, margin in nats, and `recovered`, the share of the lost
        margin that is given back. Random sets, pushed as strongly as the damage, are their mean and the highest."""
        return self._mean(self._repaired(own) for own in self.tables("repair"))

    @staticmethod
    def _repaired(own: xr.Dataset) -> pd.DataFrame:
        role = own["role"].values
        mean = own.sel(lang=PIVOT).mean("item")
        margin, right = mean["margin"].values, 100 * mean["hits"].values
        whole, lost = margin[role == "none"][0], margin[role == "damaged"][0]
        table = pd.DataFrame({"accuracy": right, "margin": margin, "recovered": (margin - lost) / (whole - lost)})
        pushes = [f"task experts, {strength:g}" for strength in own["strength"].values[role == "task experts"]]
        fixed = table[role != "random"].set_axis(["undamaged", f"damaged by {DAMAGE:g}", *pushes])
        drawn = table[role == "random"]
        for name, row in (("random experts, mean", drawn.mean()), ("random experts, highest", drawn.max())):
            fixed.loc[name] = row
        return fixed

    def by_weight(self) -> pd.DataFrame:
        """By control: gain in points over no edit, mean over clones, `as strong` (one standard deviation) and `as
        heavy`: with the strength at which it moves as much routing weight as the chosen experts do at one, NaN where no
        strength does; `moved`, that weight in percent, at one."""
        return self._mean(self._by_weight(own) for own in self.tables("weight"))

    @staticmethod
    def _by_weight(own: xr.Dataset) -> pd.DataFrame:
        others = [name for name in own["lang"].values if name != PIVOT]
        right = 100 * own["hits"].sel(lang=others).mean(("lang", "item")).values
        table = pd.DataFrame(
            {
                "name": [RANDOM if name.startswith(RANDOM) else name for name in own["name"].values.astype(str)],
                "strength": np.abs(own["strength"].values), "moved": own["moved"].values, "gain": right - right[0],
            }
        )[1:]  # fmt: skip
        each = table.groupby(["name", "strength"], sort=False)[["moved", "gain"]].mean()
        weight, rows = each.loc[("chosen", 1.0), "moved"], {}
        for name in ("chosen", *CONTROLS):
            curve = each.loc[name]
            heavy = np.interp(weight, [0, *curve["moved"]], [0, *curve["gain"]], right=np.nan)
            rows[name] = {"moved": 100 * curve.loc[1.0, "moved"], "as strong": curve.loc[1.0, "gain"]}
            rows[name]["as heavy"] = float(heavy)
        return pd.DataFrame.from_dict(rows, orient="index")

    def cost(self) -> pd.DataFrame:
        """What the chosen setting and random sets (mean) change: nats per token of running text, in clones and in
        English, and points of exact answers, mean over clones."""
        return self._mean(
            self._cost(text, answers)
            for text, answers in zip(self.tables("cost"), self.tables("generated"), strict=True)
        )

    @staticmethod
    def _cost(text: xr.Dataset, answers: xr.Dataset) -> pd.DataFrame:
        others = [name for name in text["lang"].values if name != PIVOT]

        def changed(values: xr.DataArray) -> pd.Series:
            return pd.Series((values - values[0]).values, text["role"].values.astype(str)).groupby(level=0).mean()

        nll = text["nll"].mean("text")
        exact = 100 * answers["exact"].mean("item")
        columns = {}
        for name, values in (("loss", nll), ("exact", exact)):
            columns[f"{name}, clones"] = changed(values.sel(lang=others).mean("lang"))
            columns[f"{name}, English"] = changed(values.sel(lang=PIVOT))
        return pd.DataFrame(columns).loc[["chosen", "random"]]

    @staticmethod
    def _mean(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
        each = list(tables)
        return sum(each[1:], each[0]) / len(each) if each else pd.DataFrame()
