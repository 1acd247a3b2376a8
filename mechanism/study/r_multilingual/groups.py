"""Which languages are routed alike: divergence between any two, and whether families and scripts explain it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ...corpus.languages import LANGUAGES
from ...measure.clustering import LabelTest
from ...measure.divergence import divergence_matrix
from ...measure.nulls import false_discovery
from ..base.texts import FEWEST
from .observe import script_of

LABELS = ("script", "family", "family within script")


def between(found: xr.Dataset) -> xr.DataArray:
    """Routing divergence of every two languages, `(layer, lang, other)`; NaN for two languages with fewer than ten
    common segments."""
    matrix, counts = divergence_matrix(found["importance"].values.astype(np.float64))
    codes = found["lang"].values
    cells = np.where(counts < FEWEST, np.nan, matrix)
    return xr.DataArray(
        cells, {"layer": found["layer"].values, "lang": codes, "other": codes}, ("layer", "lang", "other"), "between"
    )


def grouping(matrix: xr.DataArray, n_perm: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Do languages of one script, or of one family, lie closer together than a permutation of the labels would have it?

    Args:
        matrix: of `between`. Languages without a family, or without text in common with others, are left out.

    Returns:
        Index `(layer, label)`; columns `value` (mean divergence between groups minus that within them), `null` (its
        mean under permutation), `p`, `n` languages, and `q`, p adjusted over all cells (Benjamini and Hochberg).
        `family within script` exchanges families among languages of one script only. NaN for a label that cannot be
        tested.
    """
    codes = [str(code) for code in matrix["lang"].values if str(code) in LANGUAGES]
    codes = _connected(matrix, codes)
    labels = {"script": np.array([script_of(c) for c in codes], dtype=object)}
    labels["family"] = np.array([LANGUAGES[c].family for c in codes], dtype=object)
    rows = {}
    for layer in map(int, matrix["layer"].values):
        distance = matrix.sel(layer=layer, lang=codes, other=codes).values
        for label in LABELS:
            own, strata = (labels["family"], labels["script"]) if label == LABELS[2] else (labels[label], None)
            rows[layer, label] = _test(distance, own.astype(str), strata, n_perm, seed)
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "null", "p", "n"])
    table = table.set_axis(pd.MultiIndex.from_tuples(table.index, names=["layer", "label"]))
    return table.assign(q=false_discovery(table["p"].to_numpy(np.float64)))


def _connected(matrix: xr.DataArray, codes: Sequence[str]) -> list[str]:
    """Languages that have text in common with all others, those with the most gaps left out first."""
    codes = list(codes)
    while codes:
        gaps = np.isnan(matrix.isel(layer=0).sel(lang=codes, other=codes).values).sum(1)
        if not gaps.any():
            break
        codes.pop(int(gaps.argmax()))
    return codes


def _test(distance: np.ndarray, labels: np.ndarray, strata: np.ndarray | None, n_perm: int, seed: int) -> list[float]:
    try:
        own = None if strata is None else strata.astype(str)
        return [float(value) for value in LabelTest(n_perm=n_perm, seed=seed)(distance, labels, own)]
    except ValueError:
        return [np.nan, np.nan, np.nan, float(len(labels))]
