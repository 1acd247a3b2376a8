"""Which languages are routed alike: divergence between any two, and whether families and scripts explain it."""

from contextlib import suppress

import numpy as np
import pandas as pd
import xarray as xr

from ...corpus.languages import LANGUAGES
from ...measure.clustering import LabelTest
from ...measure.divergence import divergence_matrix
from ...measure.nulls import false_discovery
from ..base.texts import FEWEST
from .observe import script_of


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
    codes = _connected(matrix, [str(code) for code in matrix["lang"].values if str(code) in LANGUAGES])
    script = np.array([script_of(code) for code in codes], dtype=str)
    family = np.array([LANGUAGES[code].family for code in codes], dtype=str)
    labels = {"script": (script, None), "family": (family, None), "family within script": (family, script)}
    test, rows = LabelTest(n_perm=n_perm, seed=seed), {}
    for layer in map(int, matrix["layer"].values):
        distance = matrix.sel(layer=layer, lang=codes, other=codes).values
        for label, sides in labels.items():
            rows[layer, label] = {"value": np.nan, "null": np.nan, "p": np.nan, "n": len(codes)}
            with suppress(ValueError):
                rows[layer, label] = test(distance, *sides)._asdict()
    table = pd.DataFrame(rows, dtype=np.float64).T.rename_axis(["layer", "label"])
    return table.assign(q=false_discovery(table["p"].to_numpy()))


def _connected(matrix: xr.DataArray, codes: list[str]) -> list[str]:
    """Languages that have text in common with all others, those with the most gaps left out first."""
    while codes:
        gaps = np.isnan(matrix.isel(layer=0).sel(lang=codes, other=codes).values).sum(1)
        if not gaps.any():
            break
        codes.pop(int(gaps.argmax()))
    return codes
