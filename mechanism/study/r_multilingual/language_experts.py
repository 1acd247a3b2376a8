"""Are experts of languages and experts of tasks the same ones? Sets by thresholded frequency (claim R5)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus import word_problems
from ...corpus.library import committed
from ...measure.importance import frequency_difference
from ...measure.overlap import PermutedOverlap, frequency_strata, overlap_curve
from ...measure.statistics import resampling_weights
from ...models.segments import segment_pass

TAUS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
TAU = 0.3


def task_texts(pivot: str, count: int, corpus: str, seed: int = 0) -> dict[str, list[str]]:
    """Texts of tasks in the pivot language, from test data: word problems with their answers, and technical help.

    Args:
        corpus: name of the corpus that is the base; technical help is left out when it is that one.
    """
    found = {}
    if pivot in word_problems.languages():
        items = word_problems.evaluation_set("test", count, seed)
        found["word problems"] = [
            word_problems.prompt(item.question(pivot)) + word_problems.solution(item, pivot) for item in items
        ]
    tech = committed("tech")
    if corpus != "tech" and pivot in tech.columns:
        rows = tech.split("test")
        chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
        found["technical help"] = [tech.columns[pivot][rows[i]] for i in chosen]
    return found


def task_frequencies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Mapping[str, list[str]]
) -> dict[str, np.ndarray]:
    """Share of each text's tokens that select each expert, `(segment, layer, expert)`, by task."""
    found = {}
    for task, own in texts.items():
        made = segment_pass(model, tokenizer, own, hidden=False)
        found[task] = made.selections / made.tokens[:, None, None]
    return found


@dataclass(frozen=True)
class ExpertOverlap:
    """Task experts and multilingual experts over the threshold (arXiv 2510.04694, eq. 3).

    The base is the pivot's text; an expert is a task expert if its frequency in any task exceeds that in the base by
    tau, a multilingual one if that in any other language does.

    Attributes:
        taus: thresholds; bins: of base frequency, in the null; n_perm: permutations; n_boot: resamples; seed: of both.
    """

    taus: tuple[float, ...] = TAUS
    bins: int = 4
    n_perm: int = 2000
    n_boot: int = 500
    seed: int = 0

    def __call__(self, found: xr.Dataset, tasks: Mapping[str, np.ndarray]) -> pd.DataFrame:
        """One row a threshold: see `overlap_curve`, the null exchanging experts within a layer and bin of base
        frequency; `low` and `high` bound the number of shared experts by bootstrap over documents (of tasks: texts).

        Args:
            found: an observation of one corpus; tasks: of `task_frequencies`.

        Raises:
            ValueError: no task.
        """
        if not tasks:
            raise ValueError("there is no task in the language of the base: nothing can overlap")
        base, languages = self._parallel(found)
        mean = base.mean(0)
        gaps = np.stack([frequency_difference(own, base) for own in languages.values()])
        wanted = np.stack([frequency_difference(own, base) for own in tasks.values()]).max(0)
        permuted = PermutedOverlap(self.n_perm, self.seed)
        table = overlap_curve(wanted, gaps, self.taus, permuted, frequency_strata(mean, self.bins))
        counts = self._draws(found, base, languages, tasks)
        low, high = np.quantile(counts, [0.025, 0.975], axis=0)
        return table.assign(low=low, high=high).set_index("tau")

    def _parallel(self, found: xr.Dataset) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        pivot = found.attrs["pivot"]
        frequency = found["frequency"].transpose("lang", "segment", "layer", "expert")
        own = {str(c): frequency.sel(lang=c).values.astype(np.float64) for c in found["lang"].values}
        own = {code: values[~np.isnan(values).any((1, 2))] for code, values in own.items()}
        return own.pop(pivot), own

    def _draws(
        self, found: xr.Dataset, base: np.ndarray, languages: Mapping[str, np.ndarray], tasks: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Number of shared experts at each threshold in each resample, `(n_boot, tau)`."""
        clusters = found["cluster"].values
        units = int(clusters.max()) + 1
        weights = resampling_weights(units, self.n_boot, self.seed)[:, clusters]
        whole = {c: ~found["nll"].sel(lang=c).isnull().values for c in (found.attrs["pivot"], *languages)}
        middle = _means(base, weights[:, whole[found.attrs["pivot"]]])
        texts = [_means(own, resampling_weights(len(own), self.n_boot, self.seed + 1)) for own in tasks.values()]
        task = np.max([own - middle for own in texts], axis=0)
        multi = np.max([_means(own, weights[:, whole[code]]) - middle for code, own in languages.items()], axis=0)
        return np.stack([((task > tau) & (multi > tau)).sum((1, 2)) for tau in self.taus], 1)


def _means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over segments, `(n_boot, layer, expert)`."""
    total = np.tensordot(weights.astype(np.float64), values, 1)
    return np.asarray(total / np.maximum(weights.sum(1), 1)[:, None, None])
