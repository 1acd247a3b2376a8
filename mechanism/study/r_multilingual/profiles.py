"""Profiles of routing over depth, by language: means, shapes, and what claims R3 and R9 ask of them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.profile import contrasts
from ...measure.statistics import ClusterBootstrap

COMPARED = ("divergence", "shuffled", "hits", "hits_centred", "distance")
"""Quantities of a language and the pivot; of the pivot and itself they say nothing."""


ALL = -1
"""The mean over all layers, where rows are layers, as a `depth`."""


def estimates(values: xr.DataArray, bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """Means over segments with their intervals, documents resampled. Segments with a NaN are left out.

    Args:
        values: `(lang, segment, axis)` of an observation, the axis being layers, states or contrasts.

    Returns:
        Index `(lang, axis)`; columns `value`, `low`, `high`, `n` documents. A language without segments has no rows.
    """
    axis, rows = values[values.dims[2]].to_index(), {}
    for code in map(str, values["lang"].values):
        own, clusters = kept(values, code)
        for label, column in zip(axis, own.T, strict=True) if len(own) else ():
            rows[code, label] = bootstrap(column, clusters=clusters).row("value")
    index = pd.MultiIndex.from_tuples(rows, names=["lang", axis.name])
    return pd.DataFrame(list(rows.values()), index, ["value", "low", "high", "n"])


def of_languages(found: xr.Dataset, name: str) -> xr.DataArray:
    """A quantity of an observation, without the pivot where that is what languages are compared with."""
    return found[name].drop_sel(lang=found.attrs["pivot"]) if name in COMPARED else found[name]


def shapes(values: xr.DataArray, bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """Shape of profiles `(lang, segment, layer)` over depth: `estimates` of `contrasts`, taken within each segment, so
    that intervals of differences are paired.

    Raises:
        ValueError: fewer than three layers.
    """
    weights = xr.DataArray(contrasts(values.sizes["layer"]).set_axis(values["layer"].to_index(), axis=1))
    return estimates(xr.dot(values.astype(np.float64), weights, dim="layer"), bootstrap)


def falls(found: xr.Dataset, codes: Sequence[str], bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """How the entropy of languages changes with depth (claim R3): `estimates` of `slope`, `slope_difference` (the
    language's minus the pivot's, on the same segments) and `last_step`."""
    beside = found["entropy"] - found["entropy"].sel(lang=found.attrs["pivot"], drop=True)
    own, other = (shapes(each.sel(lang=list(codes)), bootstrap) for each in (found["entropy"], beside))
    difference = other.query("contrast == 'slope'").rename({"slope": "slope_difference"})
    return pd.concat([own.query("contrast in ('slope', 'last_step')"), difference]).sort_index()


def beyond(found: xr.Dataset, codes: Sequence[str], base: Sequence[str], bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """Mean divergence of some languages over that of others, minus 1 (claim R9), on the segments that all of them have:
    `estimates` by `depth`, which is a layer or `ALL` of them; empty without such segments or languages."""
    rows = {}
    for layer in (*map(int, found["layer"].values), ALL):
        tops, bottoms, clusters = _both(found, codes, base, layer)
        if len(clusters):
            rows[layer] = bootstrap(tops, bottoms, clusters).mapped(lambda value: value - 1).row("value")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("depth")


def apart(found: xr.Dataset, codes: Sequence[str], base: Sequence[str]) -> pd.DataFrame:
    """What `beyond` finds over `ALL` layers, by document: sums over its segments of how much `more` there is of the one
    than of the other, and of the other, `base`."""
    tops, bottoms, clusters = _both(found, codes, base, ALL)
    sums = pd.DataFrame({"more": tops - bottoms, "base": bottoms}).groupby(pd.Index(clusters, name="document")).sum()
    return sums.rename_axis(columns="side")


def _both(
    found: xr.Dataset, codes: Sequence[str], base: Sequence[str], layer: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean divergence of some languages and of others in the segments that all of them have, and their documents."""
    if not (codes and base):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    own, other = (found["divergence"].sel(lang=list(side)).mean("lang", skipna=False) for side in (codes, base))
    there = (own.notnull().all("layer") & other.notnull().all("layer")).values
    sides = [side.values if layer == ALL else side.sel(layer=[layer]).values for side in (own, other)]
    tops, bottoms = (side[there].mean(1).astype(np.float64) for side in sides)
    return tops, bottoms, found["cluster"].values[there]


def kept(values: xr.DataArray, code: str) -> tuple[np.ndarray, np.ndarray]:
    """A language's `(segment, axis)` values without segments that it lacks, and the documents of those it has."""
    own = values.sel(lang=code).values.astype(np.float64)
    there = ~np.isnan(own).any(1)
    return own[there], values["cluster"].values[there]
