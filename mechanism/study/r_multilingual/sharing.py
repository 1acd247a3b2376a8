"""Do middle layers hold what languages share, and do bilingual documents bring it about? (claims R10 and R12)"""

from collections.abc import Iterable, Mapping

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
from ..embedded.siblings import middle
from .observe import pool
from .profiles import kept

SEEDS = ("seed0", "seed1", "seed2")
CONTROL = "control"
TWINS = ("seed0", "dense")
"""A run that routes and its dense twin, trained on as many tokens."""


def shared_states(found: xr.Dataset, codes: Iterable[str], bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """Centred retrieval of the pivot in the best middle state, beside the embedding and the last state.

    The middle states are those from a quarter to three quarters of the depth; the best one is chosen on one half of the
    documents and counted on the other, both ways.

    Returns:
        Index `lang`; columns `best`, `embedding`, `last`, each with `_low` and `_high`; `n` segments; `shared`, whether
        the interval of `best` lies above both others.
    """
    rows = {}
    for code in codes:
        hits, clusters = kept(found, "hits_centred", code)
        if code == found.attrs["pivot"] or len(np.unique(clusters)) < 2:
            continue
        values = {"embedding": hits[:, 0], "last": hits[:, -1], "best": _crossed(hits, clusters)}
        bounds = {name: bootstrap(own, clusters=clusters) for name, own in values.items()}
        rows[code] = {name: bounds[name].estimate for name in values}
        rows[code] |= {f"{name}_low": bounds[name].low for name in values}
        rows[code] |= {f"{name}_high": bounds[name].high for name in values}
        above = max(bounds["embedding"].high, bounds["last"].high)
        rows[code] |= {"n": len(hits), "shared": bounds["best"].low > above}
    return pd.DataFrame.from_dict(rows, orient="index", columns=None if rows else ["shared"]).rename_axis("lang")


def twin_probes(names: Iterable[str] = TWINS) -> dict[str, xr.Dataset]:
    """Probes of runs at the last tokens at which all were probed, by name: the same segments, so that they can be
    compared with one another. Nothing unless every run has a record and is finished; `tokens` is in the attributes."""
    known = training_runs.records()
    runs = {name: load_history(name) for name in names if name in known}
    if set(runs) != set(names) or not all(run.result.get("finished") for run in runs.values()):
        return {}
    tokens = common_tokens(runs)
    return {name: last_probe(run, tokens).assign_attrs(pivot="en", tokens=tokens) for name, run in runs.items()}


def twin_table(probes: Mapping[str, xr.Dataset], bootstrap: ClusterBootstrap) -> pd.DataFrame:
    """`shared_states` summed up by run: `million tokens`, `languages`, the share of them that is `shared`, and mean
    retrieval in the `embedding`, in the `best` middle state and in the `last` one."""
    rows = {}
    for name, found in probes.items():
        states = shared_states(found, map(str, found["lang"].values), bootstrap)
        rows[name] = {"million tokens": found.attrs["tokens"] / 1e6, "languages": len(states)}
        rows[name] |= states[["shared", "embedding", "best", "last"]].astype(np.float64).mean().to_dict()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def _crossed(hits: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Hits of each segment in the middle state that is best on the other half of the documents."""
    own = hits[:, middle(hits.shape[1])]
    first = np.isin(clusters, np.unique(clusters)[::2])
    found = np.empty(len(own))
    for half in (first, ~first):
        found[half] = own[half][:, own[~half].mean(0).argmax()]
    return found


def last_probe(history: History, tokens: int | None = None) -> xr.Dataset:
    """A run's probe after so many tokens (the last one without), as an observation pooled over corpora, of the
    languages that the run was trained on."""
    stats = history.stats.isel(tokens_seen=-1) if tokens is None else history.stats.sel(tokens_seen=tokens)
    parts = []
    for name in map(str, stats["corpus"].values):
        rows = probe_rows(committed(name), PROBE_SEGMENTS[name])
        own = stats.sel(corpus=name, drop=True).isel(segment=slice(len(rows)))
        own = own[[variable for variable in own.data_vars if "segment" in own[variable].dims]]
        groups = pd.factorize(np.array([committed(name).rows[i].group for i in rows], dtype=object))[0]
        parts.append(own.assign_coords(cluster=("segment", groups)).assign_attrs(corpus=name, pivot="en"))
    joined = pool(parts)
    languages = history.config["mixture"]["languages"] if "mixture" in history.config else TRAINED
    return joined.sel(lang=[code for code in joined["lang"].values if code in languages])


def middle_divergence(found: xr.Dataset) -> pd.Series:
    """Mean divergence from the pivot in the middle third of the layers, by language with at least ten segments."""
    window = depth_windows(found.sizes["layer"])["middle"]
    codes = [str(code) for code in found["lang"].values if code != found.attrs["pivot"]]
    values = {code: kept(found, "divergence", code)[0][:, window] for code in codes}
    return pd.Series({code: own.mean() for code, own in values.items() if len(own) >= FEWEST}, dtype=np.float64)


def common_tokens(histories: Mapping[str, History]) -> int:
    """The last number of training tokens at which all runs were probed."""
    probed = [set(map(int, history.stats["tokens_seen"].values)) for history in histories.values()]
    return max(set.intersection(*probed))


def without_bilingual(histories: Mapping[str, History]) -> pd.DataFrame:
    """Middle-layer divergence by language (rows) and run (columns) at the last tokens that all runs share."""
    tokens = common_tokens(histories)
    return pd.DataFrame({name: middle_divergence(last_probe(own, tokens)) for name, own in histories.items()}).dropna()


def control_difference(table: pd.DataFrame, confidence: float = 0.95) -> Evidence:
    """Divergence in the control minus that in the runs with bilingual documents, mean over languages (claim R12).

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
    value = float(table[CONTROL].mean() - means.mean())
    error = float(means.std(ddof=1)) * np.sqrt(1 + 1 / len(means))
    half = float(t.ppf((1 + confidence) / 2, len(means) - 1)) * error
    return Evidence(value, value - half, value + half, len(means))


def profiles_over_training(history: History) -> pd.DataFrame:
    """Mean divergence from the pivot over trained languages, by tokens seen (rows) and layer (columns), over the pooled
    segments of all corpora."""
    rows = {}
    for tokens in map(int, history.stats["tokens_seen"].values):
        found = last_probe(history, tokens).drop_sel(lang="en")
        rows[tokens] = found["divergence"].mean("segment").mean("lang").to_pandas()
    return pd.DataFrame(rows).T.rename_axis(index="tokens_seen")
