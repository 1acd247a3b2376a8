"""Do middle layers hold what languages share, and do bilingual documents bring it about? (claims R10 and R12)"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import t

from ...corpus.languages import TRAINED
from ...corpus.library import committed
from ...measure.evidence import Evidence
from ...measure.profile import depth_windows
from ...measure.statistics import ClusterBootstrap
from ..base import runs as training_runs
from ..base.texts import FEWEST
from ..embedded.history import History, load_history
from ..embedded.probes import PROBE_SEGMENTS, probe_rows
from ..embedded.siblings import SEEDS
from .observe import pool
from .profiles import kept

CONTROL = "control"
BILINGUAL = (*SEEDS, CONTROL)
"""Runs with bilingual documents, and the one without."""
TWINS = ("seed0", "dense")
"""A run that routes and its dense twin, trained on as many tokens."""


def shared_states(found: xr.Dataset, codes: Iterable[str], bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """Centred retrieval of the pivot in the best middle state, the embedding and the last state; see `best_or_ends`.

    Returns:
        Index `lang`; columns `best`, `embedding`, `last`, each with `_low` and `_high`; `n` segments; `gain`, `best`
        minus the better one of the others.
    """
    rows = {}
    for code in codes:
        hits, clusters = kept(found["hits_centred"], code)
        if code == found.attrs["pivot"] or len(np.unique(clusters)) < 2:
            continue
        row: dict[str, float] = {}
        for name, own in zip(("best", "embedding", "last"), _best_or_ends(hits, clusters).T, strict=True):
            bound = bootstrap(own, clusters=clusters)
            row |= {name: bound.estimate, f"{name}_low": bound.low, f"{name}_high": bound.high}
        rows[code] = row | {"n": len(hits), "gain": row["best"] - max(row["embedding"], row["last"])}
    return pd.DataFrame.from_dict(rows, orient="index", columns=None if rows else ["gain"]).rename_axis("lang")


def best_or_ends(found: xr.Dataset) -> xr.DataArray:
    """Centred retrieval of each segment in the best middle state, the embedding and the last state, `(lang, segment,
    place)`.

    The middle states are those behind the middle third of the layers; of each language the best one is chosen on one
    half of its documents and counted on the other, both ways.
    """
    whole = found["hits_centred"]
    values = np.full((*whole.shape[:2], 3), np.nan)
    for row, code in enumerate(map(str, whole["lang"].values)):
        there = ~np.isnan(whole.values[row]).any(1)
        hits, clusters = kept(whole, code)
        if len(np.unique(clusters)) > 1:
            values[row, there] = _best_or_ends(hits, clusters)
    coords = {"lang": whole["lang"], "cluster": whole["cluster"]}
    return xr.DataArray(values, coords, ("lang", "segment", "place"))


def _best_or_ends(hits: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """`(segment, place)` of hits `(segment, state)`."""
    own = hits[:, 1:][:, depth_windows(hits.shape[1] - 1)["middle"]]
    first = np.isin(clusters, np.unique(clusters)[::2])
    best = np.where(first, own[:, own[~first].mean(0).argmax()], own[:, own[first].mean(0).argmax()])
    return np.stack([best, hits[:, 0], hits[:, -1]], 1)


def twin_probes() -> dict[str, xr.Dataset]:
    """Probes of `TWINS` at the last tokens at which both were probed, by name: the same segments, so that they can be
    compared with one another. Nothing unless both have a record and are finished; `tokens` is in the attributes."""
    known = training_runs.records()
    runs = {name: load_history(name) for name in TWINS if name in known}
    if len(runs) < len(TWINS) or not all(run.result.get("finished") for run in runs.values()):
        return {}
    tokens = common_tokens(runs)
    return {name: last_probe(run, tokens).assign_attrs(tokens=tokens) for name, run in runs.items()}


def twin_table(probes: Mapping[str, xr.Dataset], bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """`shared_states` summed up by run: `million tokens`, `languages`, the mean `gain` over them, and mean retrieval in
    the `embedding`, in the `best` middle state and in the `last` one."""
    rows = {}
    for name, found in probes.items():
        states = shared_states(found, map(str, found["lang"].values), bootstrap)
        rows[name] = {"million tokens": found.attrs["tokens"] / 1e6, "languages": len(states)}
        rows[name] |= states[["gain", "embedding", "best", "last"]].astype(np.float64).mean().to_dict()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def observations(history: History, tokens: int) -> dict[str, xr.Dataset]:
    """A run's probe after so many tokens as an observation of each corpus; the number of `experts` is in the
    attributes."""
    stats, parts = history.stats.sel(tokens_seen=tokens), {}
    for name in map(str, stats["corpus"].values):
        rows = probe_rows(committed(name), PROBE_SEGMENTS[name])
        own = stats.sel(corpus=name, drop=True).isel(segment=slice(len(rows)))
        own = own[[variable for variable in own.data_vars if "segment" in own[variable].dims]]
        groups = pd.factorize(np.array([committed(name).rows[i].group for i in rows], dtype=object))[0]
        about = {"corpus": name, "pivot": "en", "experts": stats.sizes.get("expert", 0)}
        parts[name] = own.assign_coords(cluster=("segment", groups)).assign_attrs(about)
    return parts


def last_probe(history: History, tokens: int) -> xr.Dataset:
    """A run's probe after so many tokens, pooled over corpora, of the languages that the run was trained on."""
    joined = pool(list(observations(history, tokens).values()))
    languages = history.config["mixture"]["languages"] if "mixture" in history.config else TRAINED
    return joined.sel(lang=[code for code in joined["lang"].values if code in languages])


def common_tokens(histories: Mapping[str, History]) -> int:
    """The last number of training tokens at which all runs were probed."""
    probed = [set(map(int, history.stats["tokens_seen"].values)) for history in histories.values()]
    return max(set.intersection(*probed))


def middle_divergence(found: xr.Dataset) -> pd.Series:
    """Mean divergence from the pivot in the middle third of the layers, by language with at least ten segments."""
    window = depth_windows(found.sizes["layer"])["middle"]
    codes = [str(code) for code in found["lang"].values if code != found.attrs["pivot"]]
    values = {code: kept(found["divergence"], code)[0][:, window] for code in codes}
    return pd.Series({code: own.mean() for code, own in values.items() if len(own) >= FEWEST}, dtype=np.float64)


def middle_retrieval(found: xr.Dataset) -> pd.Series:
    """Mean centred retrieval of the pivot in the best middle state, see `best_or_ends`, by language."""
    best = best_or_ends(found.drop_sel(lang=found.attrs["pivot"])).isel(place=0)
    return best.mean("segment").to_series().dropna()


def without_bilingual(
    histories: Mapping[str, History], measure: Callable[[xr.Dataset], pd.Series] = middle_divergence
) -> pd.DataFrame:
    """A measure by language (rows) and run (columns) at the last tokens that all runs share."""
    tokens = common_tokens(histories)
    return pd.DataFrame({name: measure(last_probe(own, tokens)) for name, own in histories.items()}).dropna()


def control_difference(table: pd.DataFrame) -> Evidence:
    """The control over the runs with bilingual documents, minus 1, means over languages (claim R12).

    The control is a single run, and seeds differ: the interval is Student's for one more run against the mean of k
    (a prediction interval), with variance s^2 (1 + 1/k) and k - 1 degrees of freedom, s the standard deviation of the
    seeds' means. It takes for granted that the control's seed moves it as much as the others' move them.

    Args:
        table: of `without_bilingual`; `n` of the result is k.

    Raises:
        ValueError: no control, fewer than two runs beside it, or no language.
    """
    means = table.drop(columns=CONTROL, errors="ignore").mean()
    if CONTROL not in table or len(means) < 2 or table.empty:
        raise ValueError("the difference needs the control, two runs with bilingual documents, and languages in all")
    value = float(table[CONTROL].mean() / means.mean()) - 1
    error = float(means.std(ddof=1) / means.mean()) * np.sqrt(1 + 1 / len(means))
    half = float(t.ppf(0.975, len(means) - 1)) * error
    return Evidence(value, value - half, value + half, len(means))


def layer_divergence(history: History, tokens: int) -> pd.Series:
    """Mean divergence from the pivot over trained languages after so many tokens, by layer, over the pooled segments of
    all corpora."""
    found = last_probe(history, tokens).drop_sel(lang="en")
    return found["divergence"].mean("segment").mean("lang").to_pandas()


def profiles_over_training(history: History) -> pd.DataFrame:
    """`layer_divergence` by tokens seen (rows) and layer (columns)."""
    probed = map(int, history.stats["tokens_seen"].values)
    return pd.DataFrame({tokens: layer_divergence(history, tokens) for tokens in probed}).T.rename_axis("tokens_seen")


def middle_over_training(histories: Mapping[str, History]) -> pd.DataFrame:
    """Mean of `middle_divergence` over languages by tokens seen (rows) and run (columns)."""
    found = {
        name: {
            tokens: middle_divergence(last_probe(own, tokens)).mean()
            for tokens in map(int, own.stats["tokens_seen"].values)
        }
        for name, own in histories.items()
    }
    return pd.DataFrame(found).rename_axis("tokens_seen").sort_index()
