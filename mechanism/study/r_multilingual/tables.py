"""Every table of chapter R over its observations, as one dataset that is recorded and read again."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.statistics import ClusterBootstrap
from .config import ChapterConfig
from .groups import between, grouping
from .language_experts import ExpertOverlap
from .observe import POOLED, pool, script_of
from .profiles import apart, beyond, estimates, falls, of_languages, shapes
from .quality import associations, explained, log_training_tokens, quality, training_bytes
from .sharing import shared_states

Measure = Callable[[xr.DataArray, ClusterBootstrap], pd.DataFrame]
COLUMNS = {
    **dict.fromkeys(("profile", "states", "shape", "falls", "held_out"), "bound"),
    **{name: f"{name}_of" for name in ("language", "association", "explained", "consistency", "shared", "overlap")},
    "groups": "statistic",
}
"""Dimension of each table's columns; `bound` is value, low, high and n of an estimate."""


def table(found: xr.Dataset, name: str) -> pd.DataFrame:
    """A table of `COLUMNS` out of the dataset, rows without a number left out; empty if it is not defined there."""
    return found[name].to_dataset(COLUMNS[name]).to_dataframe().dropna(how="all") if name in found else pd.DataFrame()


@dataclass(frozen=True)
class Chapter:
    """Tables over an observation.

    Attributes:
        parts: observations, one a corpus; tasks: frequencies of experts on task texts; config: see there.
    """

    parts: Sequence[xr.Dataset]
    tasks: Mapping[str, np.ndarray]
    config: ChapterConfig

    @cached_property
    def wide(self) -> xr.Dataset:
        """The corpus with most languages, the first of several."""
        return max(self.parts, key=lambda part: part.sizes["lang"])

    @cached_property
    def each(self) -> dict[str, xr.Dataset]:
        """Observations by corpus, and pooled."""
        return {**{part.attrs["corpus"]: part for part in self.parts}, POOLED: pool(self.parts)}

    @cached_property
    def pairs(self) -> xr.DataArray:
        """Divergence between any two languages."""
        return between(self.wide)

    def taught(self, found: xr.Dataset) -> list[str]:
        """Observed languages, the pivot left out, that the model was trained on; those not known to be unknown, if its
        training is not known."""
        codes = [str(code) for code in found["lang"].values if code != found.attrs["pivot"]]
        return [c for c in codes if (c in self.config.trained if self.config.trained else c not in self.config.unknown)]

    def strangers(self) -> tuple[list[str], list[str]]:
        """Observed languages that the model does not know, and those it does that are written in one of their
        scripts."""
        unknown = [code for code in self.config.unknown if code in self.wide["lang"].values]
        scripts = {script_of(code) for code in unknown}
        return unknown, [code for code in self.taught(self.wide) if script_of(code) in scripts]

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Tables by their names in `COLUMNS`; those that are not defined for the model or its texts are empty."""
        config, seed, pooled, wide = self.config, self.config.seed, self.each[POOLED], self.wide
        bootstrap = ClusterBootstrap(n_boot=config.n_boot, seed=seed)
        training = training_bytes(config.trained)
        language = {part.attrs["corpus"]: quality(part, training) for part in self.parts}
        mean = wide["consistency"].astype(np.float64).mean("layer", skipna=False).expand_dims(over=["layers"], axis=2)
        consistency = estimates(mean, bootstrap).droplevel("over").join(log_training_tokens(wide, training))
        overlap = ExpertOverlap(n_boot=min(config.n_boot, 500), seed=seed)
        taught = self.taught(pooled)
        return {
            "profile": self._by_corpus(estimates, ("divergence", "shuffled", "entropy", "consistency"), bootstrap),
            "states": self._by_corpus(estimates, ("hits", "hits_centred", "distance"), bootstrap),
            "shape": self._by_corpus(shapes, ("divergence", "entropy"), bootstrap),
            "falls": falls(pooled, taught, bootstrap),
            "held_out": beyond(wide, *self.strangers(), bootstrap),
            "groups": grouping(self.pairs, seed=seed),
            "language": pd.concat(language, names=["corpus"]),
            "association": self._associations(language),
            "explained": self._explained(language[wide.attrs["corpus"]]),
            "consistency": consistency,
            "shared": shared_states(pooled, taught, bootstrap),
            "overlap": overlap(wide, self.tasks) if self.tasks else pd.DataFrame(),
        }

    def dataset(self) -> xr.Dataset:
        """Tables, the number of `segments` by language and corpus, the divergence `between` any two languages, and what
        the table `held_out` says of single documents, `apart`."""
        arrays = [
            own.astype(np.float64).to_xarray().to_array(COLUMNS[name], name)
            for name, own in self.tables.items()
            if len(own)
        ]
        counts = {corpus: part["nll"].notnull().sum("segment").to_pandas() for corpus, part in self.each.items()}
        segments = pd.DataFrame(counts, dtype=np.float64).rename_axis(index="lang", columns="corpus")
        left_out = {part.attrs["corpus"]: part.attrs["left_out"] for part in self.parts if part.attrs["left_out"]}
        about = {"pivot": self.wide.attrs["pivot"], "wide": self.wide.attrs["corpus"], "tasks": ", ".join(self.tasks)}
        about |= {"experts": self.wide.sizes["expert"], "apart": " against ".join(map(", ".join, self.strangers()))}
        arrays += [apart(self.wide, *self.strangers()).stack().to_xarray().rename("apart")]
        found = xr.merge([xr.DataArray(segments, name="segments"), self.pairs, *arrays], join="outer")
        return found.assign_attrs(about | {"left_out": json.dumps(left_out)})

    def _by_corpus(self, measure: Measure, names: Iterable[str], bootstrap: ClusterBootstrap) -> pd.DataFrame:
        found = {
            (c, name): measure(of_languages(part, name), bootstrap) for name in names for c, part in self.each.items()
        }
        return pd.concat(found, names=["corpus", "quantity"]).sort_index()

    def _associations(self, language: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        wide, samples = self.wide.attrs["corpus"], dict(language)
        if self.config.trained:
            known = language[wide].index.isin(self.config.trained)
            samples[f"{wide}, trained languages"] = language[wide][known]
        found = {label: associations(own, seed=self.config.seed) for label, own in samples.items()}
        return pd.concat(found, names=["sample"])

    def _explained(self, language: pd.DataFrame) -> pd.DataFrame:
        """What divergence adds to the distance of hidden states, and the reverse."""
        rows = {}
        for added, other in (("divergence", "distance"), ("distance", "divergence")):
            rows[added] = explained(language, added, (other, "other_script", "log_train"), self.config.seed)
        return pd.DataFrame(rows).T.rename_axis("added")
