"""Profiles of routing over depth, by language: means, shapes, and what claims R1, R3 and R9 ask of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.profile import ProfileShape, contrasts, is_u_shaped
from ...measure.statistics import ClusterBootstrap

COMPARED = ("divergence", "hits", "hits_centred", "distance")
"""Quantities of a language and the pivot; of the pivot and itself they say nothing."""
FALLS = ("slope", "slope_difference", "last_step")


@dataclass(frozen=True)
class LanguageProfiles:
    """Profiles of an observation, of one corpus or pooled: tables with the columns `value`, `low`, `high` and `n`. The
    pivot has no row for a quantity of `COMPARED`.

    Attributes:
        bootstrap: over segments, documents resampled.
    """

    bootstrap: ClusterBootstrap

    def by_layer(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Mean of a quantity: index `(lang, layer)`, or `(lang, state)` of hidden states."""
        depth = found[found[name].dims[-1]].to_index()
        return self._weighted(found, name, pd.DataFrame(np.eye(len(depth)), depth))

    def overall(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Mean of a quantity over all layers: index `lang`."""
        layers = found.sizes["layer"]
        mean = pd.DataFrame(np.full((1, layers), 1 / layers), pd.Index(["mean"], name="over"))
        return self._weighted(found, name, mean).droplevel("over")

    def shapes(self, found: xr.Dataset, name: str) -> pd.DataFrame:
        """Shape of a quantity's profile over depth: index `(lang, contrast)`; see `contrasts`."""
        return self._weighted(found, name, contrasts(found.sizes["layer"]))

    def _weighted(self, found: xr.Dataset, name: str, weights: pd.DataFrame) -> pd.DataFrame:
        own, tables = ProfileShape(self.bootstrap), {}
        for code in map(str, found["lang"].values):
            values, clusters = kept(found, name, code)
            if len(values) and not (name in COMPARED and code == found.attrs["pivot"]):
                tables[code] = own(values, clusters, weights)
        return pd.concat(tables, names=["lang"])

    def falls(self, found: xr.Dataset, codes: Sequence[str]) -> pd.DataFrame:
        """How the entropy of languages changes with depth (claim R3): index `(lang, contrast)` with contrasts `slope`,
        `slope_difference` (the language's minus the pivot's, on the same segments) and `last_step`."""
        beside = found["entropy"] - found["entropy"].sel(lang=found.attrs["pivot"], drop=True)
        own, other = (self.shapes(each, "entropy") for each in (found, found.assign(entropy=beside)))
        difference = other.xs("slope", level="contrast", drop_level=False).rename({"slope": "slope_difference"})
        both = pd.concat([own, difference]).sort_index()
        return both[both.index.isin(codes, level="lang") & both.index.isin(FALLS, level="contrast")]

    def beyond(self, found: xr.Dataset, codes: Sequence[str], base: Sequence[str]) -> pd.DataFrame:
        """Mean divergence of some languages minus that of others (claim R9), on the segments that all of them have:
        index `layer`; empty without such segments or languages."""
        if not (codes and base):
            return pd.DataFrame()
        sides = [found["divergence"].sel(lang=list(side)).mean("lang", skipna=False) for side in (codes, base)]
        apart = (sides[0] - sides[1]).expand_dims(lang=["apart"])
        if apart.isnull().any("layer").all():
            return pd.DataFrame()
        return self.by_layer(apart.to_dataset(name="divergence").assign_attrs(found.attrs), "divergence").loc["apart"]


def u_shaped(shapes: pd.DataFrame) -> pd.Series:
    """Whether each language has a U-shaped divergence from the pivot (claim R1), from its `LanguageProfiles.shapes`."""
    return shapes.groupby("lang", sort=False).apply(lambda own: is_u_shaped(own.droplevel("lang")))


def entropy_falls(falls: pd.DataFrame) -> pd.Series:
    """Whether entropy falls with depth, faster than the pivot's, and steps down at the last layer, with every interval
    below zero, from `LanguageProfiles.falls`."""
    return (falls["high"] < 0).groupby("lang", sort=False).all()


def kept(found: xr.Dataset, name: str, code: str) -> tuple[np.ndarray, np.ndarray]:
    """A language's `(segment, layer)` values without segments that it lacks, and the documents of those it has."""
    values = found[name].sel(lang=code).values.astype(np.float64)
    there = ~np.isnan(values).any(1)
    return values[there], found["cluster"].values[there]
