"""What steering did: tables of a result of `steer`, and the evidence on the claims R6, R7 and R8."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Cell, Evidence, NotTestable
from ...measure.gap import GapSlope
from ...measure.nulls import false_discovery
from ...measure.paired_gain import PairedGain
from ...measure.seeds import Sampled, over_seeds
from ...measure.units import Units
from ..base.trials import Trials, check_same_items, drawn_range, gain_row, known_mean, with_q
from .steering_plan import CONTROLS, DOSED, METHODS, RANDOM

MISSING = -1


class SteeringResults(Trials):
    """Tables of a result of `steer`. Accuracies and gains are shares; means are over languages other than the pivot.

    Args:
        data: the result; paired: intervals and p-values of gains; slope: of the gain on the gap.
    """

    def __init__(self, data: xr.Dataset, paired: PairedGain | None = None, slope: GapSlope | None = None) -> None:
        hits = data["hits"].where(data["hits"] != MISSING).transpose("setting", "lang", "item").values
        codes = [str(code) for code in data["lang"].values]
        self.pivot, self.slope = str(data.attrs["pivot"]), slope or GapSlope()
        others = [code for code in codes if code != self.pivot]
        super().__init__(data, hits.astype(np.float64), codes, paired or PairedGain(), compared=others)
        (self.unedited,), (self.chosen,) = self.settings(role="none"), self.settings(role="chosen")

    @cached_property
    def _drawn(self) -> list[int]:
        """Sets of matched random experts that the model did not refuse."""
        return [i for i in self.settings(role="random") if not np.isnan(self.hits[i]).all()]

    @cached_property
    def _random(self) -> np.ndarray:
        """Hits `(lang, item)` of matched random experts, mean over the sets."""
        return np.mean([self.scores(i) for i in self._drawn], axis=0)

    @cached_property
    def null(self) -> np.ndarray:
        """Gain of each set of matched random experts."""
        return self.random_gains(self._drawn)

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
            "base": self.accuracy(self.unedited), "steered": self.accuracy(self.chosen), **gain_row(found),
            "null": float(np.quantile(self.null, 0.95)) if len(self.null) else np.nan,
            "n": found.clusters, "detectable": found.detectable,
        }  # fmt: skip

    def by_language(self) -> pd.DataFrame:
        """Accuracy before and after, gain with interval, p and q (false discovery rate over languages), `null` of
        matched random experts, items; index `lang`, the pivot first."""
        table = self.by_group(self.chosen, [self.pivot, *self.compared], self._drawn).rename_axis("lang")
        columns = {"base": "base", "edited": "steered", "gain": "gain", "low": "low", "high": "high", "p": "p"}
        columns |= {"null": "null"}
        return table.rename(columns=columns | {"items": "n"})[[*columns.values(), "n", "q"]]

    def _table(self, settings: Sequence[int]) -> pd.DataFrame:
        """Gains of settings and what describes them; index `name`."""
        about = {name: self.data[name].values[settings] for name in ("name", "strength", "moved")}
        table = pd.DataFrame([gain_row(self.gain(i)) | self.describe(i) for i in settings]).assign(**about)
        return table.set_index("name")

    def dose(self) -> pd.DataFrame:
        """Gain in accuracy and in margin (see `margin`, nats) by strength of soft steering; empty where none was tried
        or the model refused them."""
        settings = [i for i in self.settings(role="dose") if self.gain(i) is not None]
        if not settings:
            return pd.DataFrame()
        plain, *margins = self.data["margin"].values[[self.unedited, *settings]]
        found = [self.paired(plain[None], own[None], self.data["cluster"].values).gain for own in margins]
        bounds = {"margin": "estimate", "margin_low": "low", "margin_high": "high"}
        table = self._table(settings).assign(**{n: [getattr(one, f) for one in found] for n, f in bounds.items()})
        return table.set_index("strength")

    def chance(self) -> pd.DataFrame:
        """What matched random experts give at the chosen strength, as a row of `dose`: median over the sets, and where
        nine in ten of them lie. Empty where soft steering was not chosen or no set was tried."""
        if not self._drawn or str(self.data["kind"].values[self.chosen]) != DOSED:
            return pd.DataFrame()
        plain, *margins = self.data["margin"].values[[self.unedited, *self._drawn]]
        margin = [float(known_mean(own - plain, 0)) for own in margins]
        row = dict(zip(("gain", "low", "high"), drawn_range(self.null), strict=True))
        row |= dict(zip(("margin", "margin_low", "margin_high"), drawn_range(margin), strict=True))
        return pd.DataFrame(row, pd.Index([float(self.data["strength"].values[self.chosen])], name="strength"))

    def windows(self) -> pd.DataFrame:
        """Gain by window of layers, q over windows; `first` and `last` layer, `chosen` whether it is the chosen one."""
        settings = self.settings(role="window")
        if not settings:
            return pd.DataFrame()
        table = with_q(self._table(settings)).reset_index(drop=True)
        layers = table["layers"].str.split(", ")
        same = table["layers"] == self.describe(self.chosen)["layers"]
        return table.assign(first=layers.str[0].astype(int), last=layers.str[-1].astype(int), chosen=same)

    def controls(self) -> pd.DataFrame:
        """The chosen setting and the six controls: gain with interval, p, q over the controls, weight moved; index
        `name`. Random experts are the mean over all sets. A control without experts was not tried and reads NaN."""
        table = self._table([self.chosen, *self.settings(role="control")]).drop(columns="strength")
        table.loc[table["experts"] == 0, list(gain_row(None))] = np.nan
        if self._drawn:
            own = gain_row(self.gain_of(self._random)) | self.describe(self.chosen)
            own["moved"] = float(self.data["moved"].values[self._drawn].mean())
            table = pd.concat([table, pd.DataFrame(own, index=[RANDOM])])
        table = table.reindex(["chosen", *CONTROLS]).rename_axis("name").assign(q=np.nan)
        table.loc[list(CONTROLS), "q"] = false_discovery(table.loc[list(CONTROLS), "p"].to_numpy())
        return table

    def describe(self, setting: int) -> dict[str, Any]:
        """Layers, threshold, way of steering and number of experts of a setting, for tables."""
        one = self.data.isel(setting=setting)
        kind = one["kind"].item()
        steering = METHODS[kind].shown(kind, float(one["strength"]))
        layers = str(one["layers"].item()).replace(" ", ", ")
        return {"layers": layers, "tau": float(one["tau"]), "steering": steering, "experts": int(one["experts"])}

    def gaps(self) -> pd.DataFrame:
        """Gap to the pivot on dev items before steering, and gain on test items; index `lang`."""
        gap, gain = (known_mean(side, 1) for side in self._gap_items())
        return pd.DataFrame({"gap": gap, "gain": gain}, pd.Index(self.compared, name="lang"))

    def gap_slope(self) -> Evidence | None:
        """Slope over languages of gain on gap; None with fewer than three languages or equal gaps."""
        try:
            clusters = self.data["dev_cluster"].values, self.data["cluster"].values
            found = self.slope(*self._gap_items(), clusters)
        except ValueError:
            return None
        assert isinstance(found.units, Units)
        return found._replace(units=replace(found.units, of=f"items of {', '.join(self.compared)}"))

    def _gap_items(self) -> tuple[np.ndarray, np.ndarray]:
        plain = dict(zip(self.groups, self._dev[0], strict=True))
        missing = plain[self.pivot] - np.stack([plain[code] for code in self.compared])
        return missing, self.scores(self.chosen) - self.scores(self.unedited)

    @cached_property
    def _dev(self) -> np.ndarray:
        """Hits `(grid, lang, item)` on dev items, NaN where missing; the first setting edits nothing."""
        hits = self.data["dev_hits"].transpose("grid", "lang", "dev_item")
        return hits.where(hits != MISSING).values.astype(np.float64)

    @cached_property
    def tried(self) -> dict[str, np.ndarray]:
        """Hits `(lang, item)` of the controls that could be tried, by name."""
        settings = {str(self.data["name"].values[i]): i for i in self.settings(role="control")}
        hits = {name: self.scores(i) for name, i in settings.items() if self.data["experts"].values[i]}
        hits |= {RANDOM: self._random} if self._drawn else {}
        return {name: hits[name] for name in CONTROLS if name in hits and not np.isnan(hits[name]).all()}

    def cells(self, **about: str) -> dict[str, list[Cell]]:
        """Other analyses of R6 and R7. R6: every threshold, window and way of steering on dev items, where none of them
        is chosen, and every upward dose of the chosen setting on test items; the null is the 95th percentile of the
        chosen setting's random sets. R7: every control alone, and every downward dose. Both over all languages, and
        over the halves of them that lag and that lead before steering. None where no random set could be steered.

        Args:
            about: choices that all of them have made.
        """
        paired, dev = replace(self.paired, n_perm=1), self._dev
        found: dict[str, list[Cell]] = {"R6": [], "R7": []}
        if not self._drawn:
            return found
        for told, codes in self._parts().items():
            choices = {**about, "task": str(self.data.attrs["task"]), "languages": told}
            rows, base = [self.groups.index(code) for code in codes], self.scores(self.unedited, codes)

            def gain(before: np.ndarray, after: np.ndarray, items: str) -> Evidence:
                return paired(before, after, self.data[items].values).gain.mapped(_points)

            null = _points(
                np.quantile([self.accuracy(i, codes) for i in self._drawn], 0.95) - known_mean(base, 1).mean()
            )
            for i in self._doses(1):
                own = gain(base, self.scores(i, codes), "cluster").against(null)
                found["R6"].append(Cell(choices | self._told(i) | {"items": "test"}, own))
            for i in np.flatnonzero(~np.isnan(dev).all((1, 2)))[1:].tolist():
                own = gain(dev[0, rows], dev[i, rows], "dev_cluster").against(null)
                found["R6"].append(Cell(choices | self._told(i, "grid_") | {"items": "dev"}, own))
            doses = {f"strength {self.data['strength'].values[i]:g}": self.scores(i) for i in self._doses(-1)}
            places = [self.compared.index(code) for code in codes]
            for control, edited in (self.tried | doses).items():
                own = gain(base, edited[places], "cluster")
                found["R7"].append(Cell({**choices, "control": control}, own.against(own.high)))
        return found

    def _parts(self) -> dict[str, list[str]]:
        """The languages that means are over: all, and the halves that lag and that lead on dev items, unedited."""
        right = known_mean(self._dev[0], 1)
        order = sorted(self.compared, key=lambda code: right[self.groups.index(code)])
        half = len(order) // 2
        parts = {"all": self.compared, "those that lag": order[:half], "those that lead": order[half:]}
        return {told: codes for told, codes in parts.items() if codes}

    def _doses(self, sign: int) -> Iterator[int]:
        """The chosen setting and its doses, upwards or downwards, each strength once."""
        seen = set()
        for setting in [self.chosen, *self.settings(role="dose")]:
            strength = float(self.data["strength"].values[setting])
            if strength * sign > 0 and strength not in seen and not np.isnan(self.scores(setting)).all():
                seen.add(strength)
                yield setting

    def _told(self, setting: int, prefix: str = "") -> dict[str, str]:
        """What a setting chose: threshold, layers, and way and strength."""
        kind, strength, tau, layers = (
            self.data[f"{prefix}{name}"].values[setting] for name in ("kind", "strength", "tau", "layers")
        )
        steering = METHODS[kind].shown(kind, float(strength))
        return {"threshold": f"{tau:g}", "layers": layers.replace(" ", ", "), "steering": steering}

    def claims(self) -> dict[str, Evidence | str]:
        """See `claims`; of this model alone."""
        return claims([self])

    def told_moved(self) -> str:
        """The routing weight that the chosen setting and the strongest dose move per token and edited layer."""
        strengths = self.data["strength"].values
        most = max([self.chosen, *self.settings(role="dose")], key=lambda i: strengths[i])
        told = (f"{self.data['moved'].values[i]:.1%} at a strength of {strengths[i]:g}" for i in (self.chosen, most))
        return f"routing weight that steering moves: {', '.join(dict.fromkeys(told))}"


def claims(models: Sequence[SteeringResults]) -> dict[str, Evidence | str]:
    """Evidence on R6 (the gain, in points, and the 95th percentile of matched random experts), R7 (see `hurt`) and R8
    (slope of the gain on the gap, if there is a gain); or the reason why there is none. Of several models, see
    `gain_over`.

    Args:
        models: one, whose items are resampled; or one of each training seed, which have answered the same items.
    """
    own = gain_over(models, [one.scores(one.chosen) for one in models])
    told = f"{own.estimate:+.2f} [{own.low:+.2f}, {own.high:+.2f}] points"
    none = NotTestable(f"steering gains {told} on average: there is no gain that could concentrate anywhere")
    few = "fewer than three languages, or all have the same gap"
    return {
        "R6": _raised(models, own)
        if all(len(one.null) for one in models)
        else "no set of random experts could be steered",
        "R7": hurt(models),
        "R8": (_slope(models) or few) if own.low > 0 else none,
    }


def gain_over(models: Sequence[SteeringResults], hits: Sequence[np.ndarray]) -> Evidence:
    """Gain of hits `(lang, item)` over no edit, in points. Items are resampled in one model, in several training seeds
    first, then items, the same for all; see `over_seeds`.

    Raises:
        ValueError: the models have not answered the same items.
    """
    found = [one.gain_of(own) for one, own in zip(models, hits, strict=True)]
    if len(found) == 1:
        return found[0].gain.mapped(_points)
    check_same_items(models)
    return over_seeds([Sampled(_points(own.gain.estimate), 100 * own.draws, own.clusters) for own in found])


def hurt(models: Sequence[SteeringResults]) -> Evidence:
    """R7, in points: the gain of the six controls, mean over them, item by item; `null` is the highest upper end of one
    of them. A control that could not be tried in every model is left out, which the note says.

    Raises:
        ValueError: none could be tried.
    """
    names = [name for name in CONTROLS if all(name in one.tried for one in models)]
    if not names:
        raise ValueError("no control could be tried")
    found = gain_over(models, [np.mean([one.tried[name] for name in names], axis=0) for one in models])
    ends = {name: gain_over(models, [one.tried[name] for one in models]).high for name in names}
    least = max(ends, key=lambda name: ends[name])
    note = f"upper end of {least}: {ends[least]:+.2f}"
    if left := sorted(set(CONTROLS) - set(names)):
        note += f"; not tried: {', '.join(left)}"
    return found.against(ends[least], note=note)


def _raised(models: Sequence[SteeringResults], own: Evidence) -> Evidence:
    """R6 against the mean over models of what as many random experts gain."""
    sets = min(len(one.null) for one in models)
    null = np.mean([one.null[:sets] for one in models], axis=0)
    return own.against(_points(np.quantile(null, 0.95)), note=models[0].told_moved())


def _slope(models: Sequence[SteeringResults]) -> Evidence | None:
    found = [one.gap_slope() for one in models]
    if len(found) == 1 or None in found:
        return found[0] if len(found) == 1 else None
    drawn = [(own.estimate, own.units.draws) for own in found if own is not None and isinstance(own.units, Units)]
    known = ~np.isnan([draws for _, draws in drawn]).any(0)
    return over_seeds([Sampled(slope, draws[known], len(models[0].compared)) for slope, draws in drawn])


def _points(share: float) -> float:
    return 100 * float(share)
