"""Does the model share representations across languages? Parallel retrieval in middle layers at a run's last probe."""

import numpy as np
import pandas as pd
import xarray as xr
from statsmodels.stats.proportion import proportion_confint

from .siblings import ENOUGH, middle

KINDS = {"hits": "raw", "hits_centred": "centred"}


def acceptance(stats: xr.Dataset, enough: int = ENOUGH) -> pd.DataFrame:
    """Top-1 retrieval of the English translation in the best middle layer at the last probe.

    The best layer is chosen on one half of the segments and counted on the other, both ways, so that the choice does
    not flatter the figure. Intervals are Wilson's, 95 %.

    Args:
        stats: over `(tokens_seen, corpus, lang, segment, state)`.
        enough: pairs of a corpus and a language with fewer candidates are left out.

    Returns:
        One row per corpus, language (English left out) and kind (`raw`, `centred`): `layers` chosen by the halves,
        `estimate`, `low`, `high`, `n` candidates, `chance`.
    """
    last = stats.isel(tokens_seen=-1)
    rows = []
    for corpus in last["corpus"].values:
        for code in last["lang"].values:
            for variable, kind in KINDS.items():
                hits = last[variable].sel(corpus=corpus, lang=code).dropna("segment").values
                if code != "en" and len(hits) >= enough:
                    rows.append({"corpus": corpus, "lang": code, "kind": kind, **best_layer(hits)})
    return pd.DataFrame(rows, columns=["corpus", "lang", "kind", "layers", "estimate", "low", "high", "n", "chance"])


def best_layer(hits: np.ndarray) -> dict:
    """Cross-fitted accuracy of the best middle state of `hits`, `(segment, state)`, zeros and ones."""
    states = middle(hits.shape[1])
    halves = np.array_split(hits[:, states], 2)
    chosen = [int(half.mean(0).argmax()) for half in halves]
    right = round(sum(float(half[:, at].sum()) for half, at in zip(halves, reversed(chosen), strict=True)))
    low, high = proportion_confint(right, len(hits), method="wilson")
    return {
        "layers": "/".join(str(states[at]) for at in sorted(set(chosen))),
        "estimate": right / len(hits),
        "low": float(low),
        "high": float(high),
        "n": len(hits),
        "chance": 1 / len(hits),
    }


def languages_accepted(table: pd.DataFrame) -> pd.DataFrame:
    """Number of languages whose estimate reaches one half, and of all languages, by corpus and kind."""
    reached = table.assign(reached=table["estimate"] >= 0.5).groupby(["corpus", "kind"])["reached"]
    return reached.agg(["sum", "size"]).rename(columns={"sum": "reached", "size": "languages"}).reset_index()
