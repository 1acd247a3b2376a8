"""What re-weighting did, with intervals and nulls: the numbers of claim D5."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Cell, Evidence
from ...measure.nulls import permutation_p
from ...measure.paired import SeedMean
from ...measure.paired_gain import Gain, PairedGain
from ...measure.seeds import Sampled, over_seeds
from ...measure.statistics import ClusterBootstrap
from ..base.trials import Trials, check_same_items, drawn_range, known_mean, spread
from .reweighting_plan import DOMAIN, DRIVER, NONE, RANDOM

POINTS = 100
KINDS = (DOMAIN, DRIVER)


class Reweighted(Trials):
    """Tables of a result of `reweight`.

    Gains are in points of accuracy, tasks counting equally; changes of text are in bits per byte (negative is better).
    Both are against the model as it is, on the same items and texts.

    Args:
        data: the result; bootstrap: over documents; awaits: command that makes the full result, if this is a sample.
        seeds: by name, of models of other training seeds.
    """

    def __init__(
        self, data: xr.Dataset, bootstrap: ClusterBootstrap | None = None, awaits: str = "",
        seeds: Mapping[str, "Reweighted"] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        tasks = data["task_of"].values.tolist()
        self.bootstrap, self.awaits, self.seeds = bootstrap or ClusterBootstrap(), awaits, seeds
        paired = PairedGain(self.bootstrap, parallel=False)
        super().__init__(
            data, spread(POINTS * data["hit"].values.astype(np.float64), tasks), list(dict.fromkeys(tasks)), paired
        )
        (self.unedited,) = self.settings(kind=NONE)

    def chosen(self, kind: str, prefix: str = "") -> int:
        """Number of the setting of a kind of experts that was best on dev items, among those with the prefix."""
        return self._at(kind, float(self.data["chosen_factor"].sel(chosen=kind)), prefix)

    def _at(self, kind: str, factor: float, prefix: str = "") -> int:
        own = self.settings(prefix, kind=kind, of="")
        return next(i for i in own if np.isclose(self.data[f"{prefix}factor"].values[i], factor))

    def gains(self) -> pd.DataFrame:
        """One row per kind of experts, at the setting chosen on dev items: `factor`, `experts` (of a set), `base` and
        `accuracy`, `estimate`, `low`, `high`, `n` documents, `null` (95th percentile of the matched random sets'
        gains), `draws` (how many), `p_random` and `p_boot` (shares of random sets that gain as much, and of resamples
        without a gain)."""
        rows = {}
        for kind in KINDS:
            found, random = self.gain_of(self.scores(self.chosen(kind))), np.array(self.random(kind))
            rows[kind] = {
                "factor": float(self.data["chosen_factor"].sel(chosen=kind)),
                "experts": int(self.data[f"{kind}_set"].sum(("layer", "expert")).max()),
                "base": self.accuracy(self.unedited),
                "accuracy": self.accuracy(self.chosen(kind)),
                **found.gain.row(),
                "null": float(np.quantile(random, 0.95)),
                "draws": len(random),
                "p_random": float(permutation_p(np.asarray(found.gain.estimate), random)),
                "p_boot": _no_gain(found),
            }
        return pd.DataFrame(rows).T.infer_objects().rename_axis("experts of")

    def random(self, kind: str) -> list[float]:
        """Gains of the random sets that match a kind of experts, in points."""
        return self.random_gains(self.settings(kind=RANDOM[kind])).tolist()

    def by_task(self) -> pd.DataFrame:
        """Gain of each kind on each task: `kind`, `task`, `estimate`, `low`, `high`, `n`, `null` of the matched random
        sets."""
        own = {k: self.by_group(self.chosen(k), self.groups, self.settings(kind=RANDOM[k])) for k in KINDS}
        table = pd.concat(own, names=["kind", "task"]).rename(columns={"gain": "estimate", "clusters": "n"})
        return table[["estimate", "low", "high", "n", "null"]].reset_index()

    def doses(self) -> pd.DataFrame:
        """Gain over factors, the chosen number of experts kept: `kind`, `factor`, `estimate`, `low`, `high`, `n`; and
        the change of the text of the experts' own domain, `bits`, `bits_low`, `bits_high`."""
        rows = []
        for kind in KINDS:
            for setting in self.settings(kind=kind, of=""):
                factor = float(self.data["factor"].values[setting])
                text = self._bits(self._at(kind, factor, "text_"), lang=self.lang)
                bits = {"bits": text.estimate, "bits_low": text.low, "bits_high": text.high}
                gain = self.gain_of(self.scores(setting)).gain
                rows.append({"kind": kind, "factor": factor, **gain.row(), **bits})
        return pd.DataFrame(rows).sort_values(["kind", "factor"], ignore_index=True)

    def chance(self) -> pd.DataFrame:
        """What matched random sets give at the chosen factor, as a row of `doses` for each kind: median over the sets,
        and where nine in ten of them lie."""
        rows = []
        for kind in KINDS:
            row = {"kind": kind, "factor": float(self.data["chosen_factor"].sel(chosen=kind))}
            row |= dict(zip(("estimate", "low", "high"), drawn_range(self.random(kind)), strict=True))
            rows.append(
                row | dict(zip(("bits", "bits_low", "bits_high"), drawn_range(self._random_bits(kind)), strict=True))
            )
        return pd.DataFrame(rows)

    def _random_bits(self, kind: str) -> list[float]:
        """Change of the text of the experts' own domain with each random set that matches a kind."""
        return [self._bits(i, lang=self.lang).estimate for i in self.settings("text_", kind=RANDOM[kind])]

    def text(self) -> pd.DataFrame:
        """Change of bits per byte of held-out text in the domains' common language, by `kind`: `estimate`, `low`,
        `high`, `n` documents, `null` (5th percentile of the matched random sets, since less is better), `draws`."""
        rows = []
        for kind in KINDS:
            random = self._random_bits(kind)
            own = self._bits(self.chosen(kind, "text_"), lang=self.lang)
            rows.append({"kind": kind, **own.row(), "null": float(np.quantile(random, 0.05)), "draws": len(random)})
        return pd.DataFrame(rows)

    def side_effects(self) -> pd.DataFrame:
        """Change of the text of each `domain` when the experts `of` a task, or the drivers, are re-weighted: `of`,
        `domain`, `estimate`, `low`, `high`, `n`."""
        settings = {str(self.data["text_of"].values[i]): i for i in self.settings("text_", kind=DOMAIN)}
        settings = {of: i for of, i in settings.items() if of} | {"drivers": self.chosen(DRIVER, "text_")}
        return pd.DataFrame([
            {"of": of, "domain": domain, **self._bits(i, lang=self.lang, domain=domain).row()}
            for domain in pd.unique(self._texts["text_domain"].values)
            for of, i in settings.items()
        ])  # fmt: skip

    def by_language(self) -> pd.DataFrame:
        """Change of the text of each language, its domains' own experts or drivers re-weighted: `kind`, `lang`,
        `estimate`, `low`, `high`, `n`."""
        return pd.DataFrame([
            {"kind": kind, "lang": code, **self._bits(self.chosen(kind, "text_"), lang=code).row()}
            for kind in KINDS
            for code in pd.unique(self._texts["text_lang"].values)
        ])  # fmt: skip

    def by_seed(self) -> pd.DataFrame:
        """Gains of the model of each seed: `kind`, `model`, `estimate`, `low`, `high`; empty with a single one."""
        models = {"this model": self, **self.seeds} if self.seeds else {}
        rows = {
            (kind, name): own.gains().loc[kind, ["estimate", "low", "high"]]
            for kind in KINDS
            for name, own in models.items()
        }
        return (
            pd.DataFrame(rows).T.astype(float).rename_axis(["kind", "model"]).reset_index() if rows else pd.DataFrame()
        )

    def evidence(self) -> Evidence:
        """What claim D5 is judged on: the smaller gain with its interval, `n` and null, and `p` for the better one;
        over the models of all training seeds where there are several.

        Raises:
            ValueError: the models of the training seeds have not answered the same items.
        """
        return self._over_seeds() if self.seeds else self._alone()

    def _over_seeds(self) -> Evidence:
        models, found = [self, *self.seeds.values()], {}
        check_same_items(models)
        for kind in KINDS:
            own = [one.gain_of(one.scores(one.chosen(kind))) for one in models]
            drawn = [
                Sampled(o.gain.estimate, o.draws, o.clusters, np.array(m.random(kind)))
                for o, m in zip(own, models, strict=True)
            ]
            mean = over_seeds(drawn)
            draws = np.mean([one.draws for one in own], axis=0)
            above = SeedMean().above(np.array([one.gain.estimate for one in own]), (draws, own[0].clusters))
            found[kind] = mean._replace(p=max(mean.p, above))
        smaller = min(found.values(), key=lambda one: one.estimate)
        note = f"The smaller of the two gains, over {len(models)} training seeds."
        return smaller._replace(p=min(1.0, 2 * min(one.p for one in found.values())), note=note)

    def _alone(self) -> Evidence:
        table = self.gains()
        kind = str(table["estimate"].astype(float).idxmin())
        smaller, units = table.loc[kind], self.gain_of(self.scores(self.chosen(kind))).gain.units
        both = table[["p_random", "p_boot"]].astype(float).max(axis=1)
        note = f"The smaller of the two gains; {int(table['draws'].min())} random sets. p below 0.05 needs 40 of them."
        found = Evidence.of_row(smaller)
        return found._replace(units=units, p=float(min(1, 2 * both.min())), note=note)

    def cells(self) -> list[Cell]:
        """`_cells` of the model and of those of the other training seeds."""
        if not self.seeds:
            return self._cells()
        return [cell for name, own in {"this one": self, **self.seeds}.items() for cell in own._cells(model=name)]

    def _cells(self, **about: str) -> list[Cell]:
        """Other analyses of D5: domain or driver experts alone, every factor, all tasks or one, and what counts as
        right: that the right choice is the likeliest, or that it has more than half of the probability. The null is
        that of the chosen factor's random sets, on the same tasks."""
        more = spread(POINTS * (self.data["margin"].values > 0.0), self.data["task_of"].values)
        counts = {"likeliest": self.hits, "above one half": np.where(np.isnan(self.hits), np.nan, more)}
        paired, found = replace(self.paired, n_perm=1), []
        every = {"all": list(range(len(self.groups)))} | {name: [i] for i, name in enumerate(self.groups)}
        for tasks, rows in every.items():
            for right, hits in counts.items():
                scores = hits[:, rows]
                for kind in KINDS:
                    random = known_mean(scores[self.settings(kind=RANDOM[kind])], 2).mean(1)
                    null = float(np.quantile(random - known_mean(scores[self.unedited], 1).mean(), 0.95))
                    for setting in self.settings(kind=kind, of=""):
                        own = paired(scores[self.unedited], scores[setting], self.data["cluster"].values)
                        factor = f"{self.data['factor'].values[setting]:g}"
                        choices = {**about, "experts": kind, "factor": factor, "task": tasks, "right": right}
                        found.append(Cell(choices, own.gain.against(null, min(1.0, 2 * _no_gain(own)))))
        return found

    @property
    def lang(self) -> str:
        """The domains' common language."""
        return str(self.data.attrs["lang"])

    @cached_property
    def _texts(self) -> xr.Dataset:
        """What was found of texts, those of domains left out that are no task."""
        return self.data.isel(text=self.data["nll"].notnull().any("text_setting").values)

    def _bits(self, setting: int, **texts: str) -> Evidence:
        """Change of bits per byte under a text setting over the texts that are asked for, by `lang` or `domain`; a
        single document has no interval: NaN."""
        at = np.logical_and.reduce([self._texts[f"text_{name}"].values == own for name, own in texts.items()])
        own = self._texts.isel(text=at)
        nll = own["nll"].values.astype(np.float64)
        change = (nll[setting] - nll[self.settings("text_", kind=NONE)[0]]) / np.log(2)
        labels = np.char.add(
            np.char.add(own["text_domain"].values.astype(str), " "), own["text_document"].values.astype(str)
        )
        found = self.bootstrap(change, own["bytes"].values, labels)
        return found if found.n > 1 else found._replace(low=np.nan, high=np.nan)


def _no_gain(found: Gain) -> float:
    """Share of the resamples without a gain."""
    return float((1 + (found.draws <= 0).sum()) / (1 + len(found.draws)))
