"""What re-weighting did, with intervals and nulls: the numbers of claim D5."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Evidence
from ...measure.nulls import permutation_p
from ...measure.statistics import ClusterBootstrap
from ...measure.task_mean import TaskMean
from .reweighting_plan import DOMAIN, DRIVER, NONE, RANDOM

POINTS = 100


@dataclass(frozen=True)
class Reweighted:
    """Tables of a result of `reweight`.

    Gains are in points of accuracy, changes of text in bits per byte (negative is better), both against the model as it
    is, on the same items and texts.

    Attributes:
        found: the result; bootstrap: over documents.
    """

    found: xr.Dataset = field(repr=False)
    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)

    def gains(self) -> pd.DataFrame:
        """One row per kind of experts, at the setting chosen on dev items: `factor`, `experts` (of a set), `base` and
        `accuracy`, `estimate`, `low`, `high`, `n` documents, `null` (95th percentile of the matched random sets'
        gains), `draws` (how many), `p_random` and `p_boot` (shares of random sets that gain as much, and of resamples
        without a gain)."""
        rows, base = {}, self._accuracy(next(self._settings("", NONE)))
        for kind in (DOMAIN, DRIVER):
            setting = self._chosen(kind)
            gain, resampled = self._gain(setting)
            random = np.array(self.random(kind))
            row: dict[str, Any] = {
                "factor": float(self.found["chosen_factor"].sel(chosen=kind)),
                "experts": int(self.found[f"{kind}_set"].sum(("layer", "expert")).max()),
                "base": base,
                "accuracy": self._accuracy(setting),
                **gain,
                "null": float(np.quantile(random, 0.95)),
                "draws": len(random),
                "p_random": float(permutation_p(np.asarray(gain["estimate"]), random)),
                "p_boot": float((1 + (resampled <= 0).sum()) / (1 + len(resampled))),
            }
            rows[kind] = row
        return pd.DataFrame(rows).T.infer_objects().rename_axis("experts of")

    def random(self, kind: str) -> list[float]:
        """Gains of the random sets that match a kind of experts, in points."""
        base = self._accuracy(next(self._settings("", NONE)))
        return [self._accuracy(own) - base for own in self._settings("", RANDOM[kind])]

    def by_task(self) -> pd.DataFrame:
        """Gain of each kind on each task: `kind`, `task`, `estimate`, `low`, `high`, `n`."""
        rows = []
        for kind in (DOMAIN, DRIVER):
            values, clusters = self._differences(self._chosen(kind))
            for task, own in values.items():
                rows.append({"kind": kind, "task": task, **self.bootstrap(own, clusters=clusters[task]).row()})
        return pd.DataFrame(rows)

    def doses(self) -> pd.DataFrame:
        """Gain over factors, the chosen number of experts kept: `kind`, `factor`, `estimate`, `low`, `high`, `n`; and
        the change of the text of the experts' own domain, `bits`, `bits_low`, `bits_high`."""
        rows = []
        for kind in (DOMAIN, DRIVER):
            for setting in self._settings("", kind):
                factor = float(self.found["factor"].values[setting])
                text = self._bits(self._same(setting), self._texts(self._pivot))
                bits = {"bits": text["estimate"], "bits_low": text["low"], "bits_high": text["high"]}
                rows.append({"kind": kind, "factor": factor, **self._gain(setting)[0], **bits})
        return pd.DataFrame(rows).sort_values(["kind", "factor"], ignore_index=True)

    def text(self) -> pd.DataFrame:
        """Change of bits per byte of held-out text in the domains' common language, by `kind`: `estimate`, `low`,
        `high`, `n` documents, `null` (5th percentile of the matched random sets, since less is better), `draws`."""
        at, rows = self._texts(self._pivot), []
        for kind in (DOMAIN, DRIVER):
            random = [self._bits(own, at)["estimate"] for own in self._settings("text_", RANDOM[kind])]
            own = self._bits(self._same(self._chosen(kind)), at)
            rows.append({"kind": kind, **own, "null": float(np.quantile(random, 0.05)), "draws": len(random)})
        return pd.DataFrame(rows)

    def side_effects(self) -> pd.DataFrame:
        """Change of the text of each `domain` when the experts `of` a task, or the drivers, are re-weighted: `of`,
        `domain`, `estimate`, `low`, `high`, `n`."""
        rows = []
        settings = [(str(self.found["text_of"].values[i]), i) for i in self._settings("text_", DOMAIN, crossed=True)]
        settings.append(("drivers", self._same(self._chosen(DRIVER))))
        for domain in self._domains():
            at = self._texts(self._pivot) & (self.found["text_domain"].values == domain)
            rows += [{"of": of, "domain": domain, **self._bits(i, at)} for of, i in settings]
        return pd.DataFrame(rows)

    def by_language(self) -> pd.DataFrame:
        """Change of the text of each language, its domains' own experts or drivers re-weighted: `kind`, `lang`,
        `estimate`, `low`, `high`, `n`."""
        rows = []
        for kind in (DOMAIN, DRIVER):
            for code in dict.fromkeys(self.found["text_lang"].values.tolist()):
                at = self._texts(code)
                if at.any():
                    rows.append({"kind": kind, "lang": code, **self._bits(self._same(self._chosen(kind)), at)})
        return pd.DataFrame(rows)

    def evidence(self) -> Evidence:
        """What claim D5 is judged on: the smaller gain with its interval, `n` and null, and `p` for the better one."""
        table = self.gains()
        smaller = table.loc[table["estimate"].astype(float).idxmin()]
        both = table[["p_random", "p_boot"]].astype(float).max(axis=1)
        found = Evidence(*smaller[["estimate", "low", "high", "n", "null"]])
        draws = int(table["draws"].min())
        note = f"The smaller of the two gains; {draws} random sets. p below 0.05 needs 40 of them."
        return found._replace(p=float(min(1, 2 * both.min())), note=note)

    @property
    def _pivot(self) -> str:
        return str(self.found.attrs["lang"])

    def _settings(self, prefix: str, kind: str, crossed: bool = False) -> Iterator[int]:
        """Numbers of the settings of a kind, those of one domain's experts on every text apart."""
        of = self.found[f"{prefix}of"].values != ""
        for i in np.flatnonzero((self.found[f"{prefix}kind"].values == kind) & (of == crossed)):
            yield int(i)

    def _chosen(self, kind: str) -> int:
        factor = float(self.found["chosen_factor"].sel(chosen=kind))
        return next(i for i in self._settings("", kind) if np.isclose(self.found["factor"].values[i], factor))

    def _same(self, setting: int) -> int:
        """Number among the text settings of a setting of the items."""
        kind, factor = str(self.found["kind"].values[setting]), float(self.found["factor"].values[setting])
        return next(i for i in self._settings("text_", kind) if np.isclose(self.found["text_factor"].values[i], factor))

    def _accuracy(self, setting: int) -> float:
        """In points, tasks counting equally."""
        tasks = self.found["task_of"].values
        hits = self.found["hit"].values[setting].astype(np.float64)
        return float(np.mean([hits[tasks == name].mean() for name in np.unique(tasks)])) * POINTS

    def _differences(self, setting: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Differences of hits in points, and clusters, by task."""
        hits = self.found["hit"].values.astype(np.float64)
        change = (hits[setting] - hits[next(self._settings("", NONE))]) * POINTS
        tasks = self.found["task_of"].values
        names = list(dict.fromkeys(tasks.tolist()))
        clusters = self.found["cluster"].values
        return {n: change[tasks == n] for n in names}, {n: clusters[tasks == n] for n in names}

    def _gain(self, setting: int) -> tuple[dict[str, Any], np.ndarray]:
        mean, (values, clusters) = TaskMean(self.bootstrap), self._differences(setting)
        return mean(values, clusters).row(), mean.draws(values, clusters)

    def _domains(self) -> list[str]:
        kept = self.found["nll"].notnull().any("text_setting").values
        return list(dict.fromkeys(self.found["text_domain"].values[kept].tolist()))

    def _texts(self, code: str) -> np.ndarray:
        known = self.found["nll"].notnull().any("text_setting").values
        return np.asarray(known & (self.found["text_lang"].values == code))

    def _bits(self, setting: int, at: np.ndarray) -> dict[str, Any]:
        """Change of bits per byte under a text setting over some texts; a single document has no interval: NaN."""
        nll = self.found["nll"].values.astype(np.float64)
        change = (nll[setting] - nll[next(self._settings("text_", NONE))])[at] / np.log(2)
        domain, document = (self.found[f"text_{name}"].values[at].astype(str) for name in ("domain", "document"))
        labels = np.char.add(np.char.add(domain, " "), document)
        found = self.bootstrap(change, self.found["bytes"].values[at], labels).row()
        if len(np.unique(labels)) < 2:
            found |= {"low": np.nan, "high": np.nan}
        return found
