"""Profiles of routing over depth, by language: means, shapes, and what claims R1, R3 and R9 ask of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import xarray as xr
from statsmodels.stats.proportion import proportion_confint

from ...measure.evidence import Evidence
from ...measure.profile import ProfileShape, is_u_shaped
from ...measure.statistics import ClusterBootstrap

ESTIMATED = ("value", "low", "high", "n")
FALLS = ("slope", "slope_difference", "last_step")


@dataclass(frozen=True)
class LanguageProfiles:
    """Profiles of an observation, of one corpus or pooled.

    Attributes:
        bootstrap: over segments, documents resampled.
    """

    bootstrap: ClusterBootstrap = field(default_factory=ClusterBootstrap)

    def by_layer(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Mean of a quantity per language and layer (or hidden state) with its interval; columns `lang`, `layer` (or
        `state`), `value`, `low`, `high`, `n`."""
        axis = str(found[name].dims[-1])
        rows = []
        for code in found["lang"].values:
            values, clusters = kept(found, name, code)
            for i, depth in enumerate(found[axis].values if len(values) else ()):
                estimate = self.bootstrap(values[:, i], clusters=clusters)
                rows.append({"lang": str(code), axis: int(depth), **estimate.row("value")})
        return pd.DataFrame(rows)

    def overall(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Mean of a quantity per language over all layers, index `lang`; columns `value`, `low`, `high`, `n`."""
        rows = {}
        for code in map(str, found["lang"].values):
            values, clusters = kept(found, name, code)
            if len(values):
                rows[code] = self.bootstrap(values.mean(1), clusters=clusters).row("value")
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("lang")

    def shapes(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Shape statistics of each language's profile over depth: index `(lang, contrast)`; see `ProfileShape`. For
        `divergence`, the pivot is left out."""
        shape = ProfileShape(self.bootstrap)
        tables = {}
        for code in map(str, found["lang"].values):
            values, clusters = kept(found, name, code)
            if len(values) and not (name == "divergence" and code == found.attrs["pivot"]):
                tables[code] = shape(values, clusters)
        return pd.concat(tables, names=["lang"])

    def u_shaped(self, found: xr.Dataset) -> pd.Series:
        """Whether each language but the pivot has a U-shaped divergence from it (claim R1)."""
        shapes = self.shapes(found, "divergence")
        return shapes.groupby("lang", sort=False).apply(lambda s: is_u_shaped(s.droplevel("lang"))).rename("u_shaped")

    def falls(self, found: xr.Dataset, codes: Iterable[str]) -> pd.DataFrame:
        """How the entropy of languages changes with depth (claim R3): index `(lang, contrast)` with contrasts `slope`,
        `slope_difference` (the language's minus the pivot's, on the same segments) and `last_step`."""
        paired = found[["entropy"]].copy()
        paired["entropy"] = paired["entropy"] - found["entropy"].sel(lang=found.attrs["pivot"])
        codes = [code for code in codes if code != found.attrs["pivot"]]
        if not codes:
            index = pd.MultiIndex.from_tuples([], names=["lang", "contrast"])
            return pd.DataFrame(index=index, columns=list(ESTIMATED), dtype=np.float64)
        own = self.shapes(found[["entropy"]].sel(lang=codes), "entropy")
        other = self.shapes(paired.assign_attrs(found.attrs).sel(lang=codes), "entropy")
        difference = other.xs("slope", level="contrast", drop_level=False).rename({"slope": "slope_difference"})
        both = pd.concat([own, difference])
        return both[both.index.get_level_values("contrast").isin(FALLS)].sort_index()

    def beyond(self, found: xr.Dataset, codes: Sequence[str], base: Sequence[str]) -> pd.DataFrame:
        """Mean divergence of some languages minus that of others, per layer (claim R9), on the segments that all of
        them have: columns `layer`, `value`, `low`, `high`, `n`; empty without such segments or languages."""
        columns = ["layer", *ESTIMATED]
        if not (codes and base):
            return pd.DataFrame(columns=columns)
        sides = [found["divergence"].sel(lang=list(side)).mean("lang", skipna=False).values for side in (codes, base)]
        difference = sides[0] - sides[1]
        whole = ~np.isnan(difference).any(1)
        rows = [
            {"layer": int(layer), **self.bootstrap(column, clusters=found["cluster"].values[whole]).row("value")}
            for layer, column in zip(found["layer"].values, difference[whole].T, strict=True)
            if whole.any()
        ]
        return pd.DataFrame(rows, columns=columns)


def entropy_falls(table: pd.DataFrame) -> pd.Series:
    """Whether entropy falls with depth, faster than the pivot's, and steps down at the last layer, with every interval
    below zero.

    Args:
        table: of `LanguageProfiles.falls`.
    """
    return (table["high"] < 0).groupby("lang", sort=False).all().rename("falls")


def share(flags: Iterable[bool]) -> Evidence:
    """Share of languages, or layers, that have a property, with Wilson's 95 % interval.

    Raises:
        ValueError: there are none.
    """
    values = np.array(list(flags), dtype=bool)
    if not len(values):
        raise ValueError("no language is left to take a share of")
    low, high = proportion_confint(int(values.sum()), len(values), method="wilson")
    return Evidence(float(values.mean()), float(low), float(high), len(values))


def kept(found: xr.Dataset, name: str, code: str) -> tuple[np.ndarray, np.ndarray]:
    """A language's `(segment, layer)` values without segments that it lacks, and the documents of those it has."""
    values = found[name].sel(lang=code).values.astype(np.float64)
    there = ~np.isnan(values).any(1)
    return values[there], found["cluster"].values[there]
