"""What steering did: tables of a study's result, and the evidence on the claims R6, R7 and R8."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from statsmodels.stats.proportion import proportion_confint

from ...measure.evidence import Evidence
from ...measure.gap import GapSlope
from ...measure.nulls import false_discovery
from ...measure.paired_gain import Gain, PairedGain
from .steering import MISSING

RANDOM = "random experts"
CONTROLS = ("earlier layers", "later layers", "all layers", "multilingual experts", RANDOM, "deactivation")


@dataclass
class SteeringResults:
    """Tables of a result of `steer`. Accuracies and gains are shares; means are over languages other than the pivot.

    Attributes:
        data: the result; paired: intervals and p-values of gains; slope: of the gain on the gap.
    """

    data: xr.Dataset
    paired: PairedGain = field(default_factory=PairedGain)
    slope: GapSlope = field(default_factory=GapSlope)

    @cached_property
    def others(self) -> list[str]:
        """Languages but the pivot."""
        return [str(code) for code in self.data["lang"].values if code != self.data.attrs["pivot"]]

    @cached_property
    def hits(self) -> np.ndarray:
        """`(setting, lang, item)` on test items, NaN where missing or refused."""
        found = self.data["hits"].transpose("setting", "lang", "item").values
        return np.where(found == MISSING, np.nan, found.astype(np.float64))

    def settings(self, role: str) -> list[int]:
        """Numbers of the settings of a role: `none`, `chosen`, `dose`, `window`, `control` or `random`."""
        return [int(i) for i in np.flatnonzero(self.data["role"].values == role)]

    @cached_property
    def chosen(self) -> int:
        """Number of the chosen setting."""
        return self.settings("chosen")[0]

    @cached_property
    def _plain(self) -> int:
        return self.settings("none")[0]

    def scores(self, setting: int, languages: Sequence[str] = ()) -> np.ndarray:
        """Hits `(lang, item)` of a setting."""
        codes = list(map(str, self.data["lang"].values))
        return np.asarray(self.hits[setting, [codes.index(code) for code in languages or self.others]])

    def gain(self, setting: int, languages: Sequence[str] = ()) -> Gain | None:
        """Gain of a setting over no edit, mean over languages; None where the model refused the edit."""
        return self._gain(self.scores(setting, languages), languages)

    def _gain(self, edited: np.ndarray, languages: Sequence[str] = ()) -> Gain | None:
        if np.isnan(edited).all():
            return None
        return self.paired(self.scores(self._plain, languages), edited, self.data["cluster"].values)

    def accuracy(self, setting: int, languages: Sequence[str] = ()) -> float:
        """Mean over languages of the accuracy."""
        return float(np.nanmean(self.scores(setting, languages), axis=1).mean())

    @cached_property
    def _drawn(self) -> list[int]:
        """Sets of matched random experts that the model did not refuse."""
        return [i for i in self.settings("random") if not np.isnan(self.hits[i]).all()]

    @cached_property
    def null(self) -> np.ndarray:
        """Gain of each set of matched random experts. Below 1e-12, gains are rounding."""
        gains = np.array([self.accuracy(i) for i in self._drawn]) - self.accuracy(self._plain)
        return gains.round(12) + 0.0  # no negative zero

    @property
    def distinct(self) -> int:
        """Number of different sets among the random ones; few where few experts are steered."""
        return len(set(self.data["targets"].values[self._drawn]))

    def summary(self) -> dict[str, Any]:
        """The result as a row of the source's table, with interval, p-value, null and power."""
        found = self.gain(self.chosen)
        assert found is not None, "a refused setting is never chosen"
        return {
            "task": self.data.attrs["task"], **self.describe(self.chosen),
            "base": self.accuracy(self._plain), "steered": self.accuracy(self.chosen), **_row(found),
            "null": float(np.quantile(self.null, 0.95)) if len(self.null) else np.nan,
            "n": found.items, "detectable": found.detectable,
        }  # fmt: skip

    def by_language(self) -> pd.DataFrame:
        """Accuracy before and after, gain with interval, p and q (false discovery rate over languages), items; index
        `lang`, the pivot first."""
        rows = []
        for code in [self.data.attrs["pivot"], *self.others]:
            found = self.gain(self.chosen, [code])
            assert found is not None
            base, steered = (self.accuracy(i, [code]) for i in (self._plain, self.chosen))
            rows.append({"lang": code, "base": base, "steered": steered, **_row(found), "n": found.items})
        return with_q(pd.DataFrame(rows)).set_index("lang")

    def dose(self) -> pd.DataFrame:
        """Gain in accuracy and in margin (log-odds of the right choice, nats) by strength of soft steering."""
        rows = []
        margins, clusters = self.data["margin"].values, self.data["cluster"].values
        for setting in self.settings("dose"):
            found = self.gain(setting)
            if found is not None:
                margin = self.paired(margins[[self._plain]], margins[[setting]], clusters).gain
                more = {"margin": margin.estimate, "margin_low": margin.low, "margin_high": margin.high}
                rows.append({"strength": float(self.data["strength"][setting]), **_row(found), **more})
        return pd.DataFrame(rows).set_index("strength") if rows else pd.DataFrame()

    def windows(self) -> pd.DataFrame:
        """Gain by window of layers, q over windows; `first` and `last` layer, `chosen` whether it is the chosen one."""
        rows = []
        for setting in self.settings("window"):
            about = self.describe(setting)
            layers = about["layers"].split(", ")
            same = about["layers"] == self.describe(self.chosen)["layers"]
            ends = {"first": int(layers[0]), "last": int(layers[-1]), "chosen": same, "experts": about["experts"]}
            rows.append(ends | _row(self.gain(setting)))
        return with_q(pd.DataFrame(rows)) if rows else pd.DataFrame()

    def controls(self) -> pd.DataFrame:
        """The chosen setting and the six controls: gain with interval, p, q over the controls, weight moved; index
        `name`. Random experts are the mean over all sets. A control without experts was not tried and reads NaN."""
        moved = self.data["moved"].values
        rows = {}
        for setting in [self.chosen, *self.settings("control")]:
            about = self.describe(setting)
            found = _row(self.gain(setting) if about["experts"] else None)
            rows[str(self.data["name"].values[setting])] = found | about | {"moved": float(moved[setting])}
        if self._drawn:
            mean = np.mean([self.scores(i) for i in self._drawn], axis=0)
            about = self.describe(self.chosen) | {"moved": float(moved[self._drawn].mean())}
            rows[RANDOM] = _row(self._gain(mean)) | about
        table = pd.DataFrame.from_dict(rows, orient="index").reindex(["chosen", *CONTROLS]).rename_axis("name")
        table["q"] = np.nan
        table.loc[list(CONTROLS), "q"] = false_discovery(table.loc[list(CONTROLS), "p"].to_numpy())
        return table

    def describe(self, setting: int) -> dict[str, Any]:
        """Layers, threshold, way of steering and number of experts of a setting, for tables."""
        one = self.data.isel(setting=setting)
        strength = float(one["strength"])
        way = f"soft {strength:g}" if one["kind"].item() == "soft" else "hard" if strength > 0 else "hard, down"
        layers = str(one["layers"].item()).replace(" ", ", ")
        return {"layers": layers, "tau": float(one["tau"]), "steering": way, "experts": int(one["experts"])}

    def gaps(self) -> pd.DataFrame:
        """Gap to the pivot on dev items before steering, and gain on test items; index `lang`."""
        means = [np.nanmean(side, axis=1) for side in self._gap_items()]
        return pd.DataFrame(dict(zip(("gap", "gain"), means, strict=True)), pd.Index(self.others, name="lang"))

    def gap_slope(self) -> Evidence | None:
        """Slope over languages of gain on gap (claim R8); None with fewer than three languages or equal gaps."""
        try:
            clusters = self.data["dev_cluster"].values, self.data["cluster"].values
            return self.slope(*self._gap_items(), clusters)
        except ValueError:
            return None

    def _gap_items(self) -> tuple[np.ndarray, np.ndarray]:
        dev = self.data["dev_hits"].isel(grid=0).transpose("lang", "dev_item")
        known = dev.where(dev != MISSING)
        missing = known.sel(lang=self.data.attrs["pivot"]).values - known.sel(lang=self.others).values
        return np.asarray(missing, np.float64), self.scores(self.chosen) - self.scores(self._plain)

    def r6(self) -> Evidence | None:
        """Evidence on R6: the gain, in points, and the 95th percentile of matched random experts; None without any."""
        row = self.summary()
        if not len(self.null):
            return None
        return Evidence(100 * row["gain"], 100 * row["low"], 100 * row["high"], row["n"], 100 * row["null"])

    def r7(self) -> Evidence:
        """Evidence on R7: share of the six controls whose gain has its interval below 0 (Wilson's interval). One that
        cannot be tried has not hurt."""
        hurt = int((self.controls().loc[list(CONTROLS), "high"] < 0).sum())
        low, high = proportion_confint(hurt, len(CONTROLS), method="wilson")
        return Evidence(hurt / len(CONTROLS), low, high, len(CONTROLS))


def _row(found: Gain | None) -> dict[str, float]:
    if found is None:
        return dict.fromkeys(("gain", "low", "high", "p"), float("nan"))
    return {"gain": found.gain.estimate, "low": found.gain.low, "high": found.gain.high, "p": found.p}


def with_q(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `q`: p-values adjusted over its rows to control the false discovery rate."""
    return table.assign(q=false_discovery(table["p"].to_numpy()))
