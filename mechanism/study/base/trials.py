"""Interventions chosen on dev items and tried on test items, beside random experts that match them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike

from ...corpus.tasks import ChoiceItem
from ...measure.matching import MatchedExperts
from ...measure.nulls import false_discovery
from ...measure.paired_gain import Gain, PairedGain, group_weighted
from ...measure.units import Units
from ...models.choices import Edit, EditedChoices
from ...models.scoring import judged
from ...trace.interventions import Targets


@dataclass(frozen=True)
class Setting:
    """One thing that is tried.

    Attributes:
        labels: what describes it, stored as coordinates; the settings of a trial have the same names.
        edit: the intervention or those that act at once, None for the model as it is; or these by group of items.
    """

    labels: Mapping[str, Any]
    edit: Edit | Mapping[str, Edit] = None

    def on(self, group: str) -> Edit:
        """The intervention on a group of items."""
        return self.edit[group] if isinstance(self.edit, Mapping) else self.edit


def described(settings: Sequence[Setting], prefix: str = "") -> dict[str, tuple[str, list]]:
    """Labels of settings as coordinates of `setting`, names and dimension behind a prefix."""
    return {f"{prefix}{n}": (f"{prefix}setting", [one.labels[n] for one in settings]) for n in settings[0].labels}


def attempt(
    scorer: EditedChoices,
    items: Mapping[str, Sequence[ChoiceItem]],
    settings: Sequence[Setting],
    per_byte: Sequence[str] = (),
) -> xr.Dataset:
    """Score items, by group, under settings.

    Args:
        per_byte: groups whose choices are scored per UTF-8 byte.

    Returns `hit` and `margin` `(setting, item)`, see `judged`, NaN where the model's routers refuse an edit, and
    `moved`, the routing weight that a setting moves per token and edited layer. Settings are described by their labels,
    items by `group`, `id` and `cluster`.
    """
    flat = [(group, item) for group, own in items.items() for item in own]
    hits, margins = np.full((2, len(settings), len(flat)), np.nan)
    moved = np.zeros(len(settings))
    jobs: dict[tuple, list[str]] = {}
    for group in items:
        jobs.setdefault(tuple(one.on(group) for one in settings), []).append(group)
    for edits, groups in jobs.items():
        rows = [row for row, (group, _) in enumerate(flat) if group in groups]
        own = [flat[row][1] for row in rows]
        scores = scorer(own, edits)
        hits[:, rows], margins[:, rows] = judged(own, scores.logprob, [flat[row][0] in per_byte for row in rows])
        moved += scores.moved * len(rows) / len(flat)
    data = {"hit": (("setting", "item"), hits), "margin": (("setting", "item"), margins), "moved": ("setting", moved)}
    about = {"group": [group for group, _ in flat]} | {n: [getattr(i, n) for _, i in flat] for n in ("id", "cluster")}
    return xr.Dataset(data, {name: ("item", values) for name, values in about.items()} | described(settings))


def spread(values: np.ndarray, group: ArrayLike, item: ArrayLike | None = None) -> np.ndarray:
    """Scores `(setting, flat)` as `(setting, group, item)`, NaN where a group lacks an item; groups and items in order
    of appearance.

    Args:
        item: names; the same name is the same item in several groups. Without them each is an item of its own.
    """
    rows, groups = pd.factorize(np.asarray(group))
    columns, items = pd.factorize(np.arange(len(rows)) if item is None else np.asarray(item))
    found = np.full((len(values), len(groups), len(items)), np.nan)
    found[:, rows, columns] = values
    return found


def known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over an axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.where(count > 0, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def drawn_range(values: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """Of what random sets give: the median, and the 5th and 95th percentile."""
    middle, low, high = np.quantile(values, [0.5, 0.05, 0.95])
    return float(middle), float(low), float(high)


def choose(hits: np.ndarray, margins: np.ndarray | None = None) -> int | None:
    """The setting with the best accuracy, groups counting equally, from scores `(setting, group, item)`; None where all
    are refused. Among equals the one with the largest mean margin, if margins are given, then the first."""
    accuracy, margin = (
        np.nan_to_num(known_mean(one, 2).mean(1), nan=-np.inf).round(9)
        for one in (hits, hits if margins is None else margins)
    )
    if np.isinf(accuracy).all():
        return None
    return int(np.lexsort((-np.arange(len(hits)), margin, accuracy))[-1])


def targets_of(chosen: np.ndarray, layers: Sequence[int]) -> Targets:
    """Pairs (decoder layer, expert) of a set `(layer, expert)`; `layers`: the decoder layer of each row."""
    return tuple((int(layers[row]), int(expert)) for row, expert in np.argwhere(chosen))


def matched(targets: Targets, layers: Sequence[int], frequency: np.ndarray, draws: int, seed: int = 0) -> list[Targets]:
    """Random experts in place of the targets, `draws` times: as many in each layer, of similar frequency
    `(layer, expert)`; see `MatchedExperts`."""
    chosen = np.zeros(frequency.shape, dtype=bool)
    for layer, expert in targets:
        chosen[list(layers).index(layer), expert] = True
    return [targets_of(one, layers) for one in MatchedExperts(draws, seed=seed)(chosen, frequency)]


class Trials:
    """Gains of settings over the model as it is; accuracies and gains are in the units of `hits`.

    Attributes:
        data: the stored result, settings described by coordinates, with `cluster` of each item.
        hits: `(setting, group, item)` on test items, NaN where missing or refused; groups: languages or tasks.
        paired: intervals and p-values of gains.
        unedited: number of the setting that changes nothing; compared: groups that means are over, all by default.
    """

    def __init__(
        self, data: xr.Dataset, hits: np.ndarray, groups: Sequence[str], paired: PairedGain,
        unedited: int = 0, compared: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.data, self.hits, self.groups, self.paired = data, hits, list(groups), paired
        self.unedited, self.compared = unedited, list(compared or groups)

    def settings(self, prefix: str = "", **labels: Any) -> list[int]:
        """Numbers of the settings with these labels, coordinates whose names begin with the prefix."""
        same = [self.data[f"{prefix}{name}"].values == value for name, value in labels.items()]
        return np.flatnonzero(np.logical_and.reduce(same)).tolist()

    def scores(self, setting: int, groups: Sequence[str] = ()) -> np.ndarray:
        """Hits `(group, item)` of a setting."""
        return np.asarray(self.hits[setting, [self.groups.index(name) for name in groups or self.compared]])

    def accuracy(self, setting: int, groups: Sequence[str] = ()) -> float:
        """Mean over groups of the accuracy."""
        return float(known_mean(self.scores(setting, groups), 1).mean())

    def gain(self, setting: int) -> Gain | None:
        """Gain of a setting over no edit, mean over groups; None where the model refused the edit."""
        edited = self.scores(setting)
        return None if np.isnan(edited).all() else self.gain_of(edited)

    def gain_of(self, edited: np.ndarray, groups: Sequence[str] = ()) -> Gain:
        """Gain of hits `(group, item)` over no edit."""
        base, clusters = self.scores(self.unedited, groups), self.data["cluster"].values
        found, names = self.paired(base, edited, clusters), list(groups or self.compared)
        tops, weight = group_weighted(edited - base)
        if not self.paired.parallel:  # every item is of one group
            owner = (~np.isnan(base)).argmax(0)
            clusters = np.array([f"{names[i]} {one}" for i, one in zip(owner, clusters, strict=True)])
        units = Units.ratio(f"items of {', '.join(names)}", clusters, tops, weight)
        return found._replace(gain=found.gain._replace(units=units))

    def by_group(self, setting: int, groups: Sequence[str], random: Sequence[int] = ()) -> pd.DataFrame:
        """Of each group `base` and `edited` accuracy, `gain`, `low`, `high`, `p`, `q` (false discovery rate over the
        groups), `null` (95th percentile of the gains of matched random experts), `clusters` and `items`."""
        rows = {}
        for name in groups:
            found = self.gain_of(self.scores(setting, [name]), [name])
            rows[name] = {n: self.accuracy(i, [name]) for n, i in (("base", self.unedited), ("edited", setting))}
            rows[name] |= gain_row(found) | {"clusters": found.clusters, "items": found.items}
            drawn = [self.accuracy(i, [name]) for i in random]
            rows[name]["null"] = np.nanquantile(drawn, 0.95) - rows[name]["base"] if drawn else np.nan
        return with_q(pd.DataFrame.from_dict(rows, orient="index"))

    def random_gains(self, settings: Sequence[int]) -> np.ndarray:
        """Gain of each set of matched random experts, the null of the chosen ones. Below 1e-12, gains are rounding."""
        gains = np.array([self.accuracy(i) for i in settings]) - self.accuracy(self.unedited)
        return gains.round(12) + 0.0  # no negative zero


def check_same_items(models: Sequence[Trials]) -> None:
    """Refuse models that did not answer the same test items.

    Raises:
        ValueError: some did not.
    """
    if any(not one.data["cluster"].equals(models[0].data["cluster"]) for one in models):
        raise ValueError("the models of the training seeds have not answered the same items")


def gain_row(found: Gain | None) -> dict[str, float]:
    """A gain as columns `gain`, `low`, `high` and `p`, NaN without one."""
    if found is None:
        return dict.fromkeys(("gain", "low", "high", "p"), float("nan"))
    return {"gain": found.gain.estimate, "low": found.gain.low, "high": found.gain.high, "p": found.p}


def with_q(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `q`: p-values adjusted over its rows to control the false discovery rate."""
    return table.assign(q=false_discovery(table["p"].to_numpy()))
