"""Are experts of languages and experts of tasks the same ones? Sets by thresholded frequency (claim R5)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from ...corpus import word_problems
from ...corpus.library import committed
from ...corpus.text import even
from ...measure.overlap import PermutedOverlap, frequency_strata, overlap_curve
from ...measure.statistics import resampling_weights, with_observed

TAUS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
TAU = 0.3
BINS = 4
"""Bins of base frequency, in the null."""


def task_texts(pivot: str, count: int, corpus: str, seed: int = 0) -> dict[str, list[str]]:
    """Texts of tasks in the pivot language, from test data: word problems with their answers, and technical help.

    Args:
        corpus: name of the corpus that is the base; technical help is left out when it is that one.
    """
    found = {}
    if pivot in word_problems.languages():
        found["word problems"] = ["".join(pair) for pair in word_problems.solved("test", count, pivot, seed)]
    tech = committed("tech")
    if corpus != "tech" and pivot in tech.columns:
        found["technical help"] = tech.texts(pivot, even(tech.split("test"), count))
    return found


@dataclass(frozen=True)
class ExpertOverlap:
    """Task experts and multilingual experts over the threshold (arXiv 2510.04694, eq. 3).

    The base is the pivot's text; an expert is a task expert if its frequency in any task exceeds that in the base by
    tau, a multilingual one if that in any other language does.

    Attributes:
        taus: thresholds; n_perm: permutations; n_boot: resamples; seed: of both.
    """

    taus: tuple[float, ...] = TAUS
    n_perm: int = 2000
    n_boot: int = 500
    seed: int = 0

    def __call__(self, found: xr.Dataset, tasks: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """One row a threshold: see `overlap_curve`, the null exchanging experts within a layer and quarter of base
        frequency; `low` and `high` bound the number of shared experts by bootstrap over documents (of tasks: texts).

        Args:
            found: an observation of one corpus; tasks: `frequency` on the texts of each task, at least one.
        """
        frequency = found["frequency"].transpose("lang", "segment", "layer", "expert")
        clusters = found["cluster"].values
        weights = self._weights(int(clusters.max()) + 1, self.seed)[:, clusters]
        base = _means(frequency.sel(lang=found.attrs["pivot"]).values, weights)
        others = frequency.drop_sel(lang=found.attrs["pivot"]).values
        languages = np.stack([_means(own, weights) - base for own in others], 1)
        texts = [_means(own, self._weights(len(own), self.seed + 1)) - base for own in tasks.values()]
        task = np.max(texts, axis=0)
        permuted, strata = PermutedOverlap(self.n_perm, self.seed), frequency_strata(base[0], BINS)
        table = overlap_curve(task[0], languages[0], self.taus, permuted, strata).set_index("tau")
        both = np.minimum(task, languages.max(1))[1:]
        low, high = np.quantile([(both > tau).sum((1, 2)) for tau in self.taus], [0.025, 0.975], axis=1)
        return table.assign(low=low, high=high)

    def _weights(self, units: int, seed: int) -> np.ndarray:
        return with_observed(resampling_weights(units, self.n_boot, seed))


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over the segments that are not missing, `(draw, layer, expert)`."""
    there = ~np.isnan(values).any((1, 2))
    total = np.tensordot(weights[:, there], values[there].astype(np.float64), 1)
    return np.asarray(total / np.maximum(weights[:, there].sum(1), 1)[:, None, None])
