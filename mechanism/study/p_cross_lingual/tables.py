"""What the records of the cross-lingual grid say: numbers for claims P7 to P13 and P15; those for P4 are in `thesis`,
for P5 and P6 in `adaptation`."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from ...measure.divergence import entropy
from ...measure.evidence import Evidence
from ...measure.paired import PairedDifference, SeedMean
from ..grid.records import by_seed, paired
from .grid import BASE, LanguageGrid
from .run import LanguageRun

NOISE = 0.08


@dataclass(frozen=True)
class Experiment:
    """The records of a grid; `seed` is that of bootstraps and permutations."""

    grid: LanguageGrid
    seed: int = 0

    @cached_property
    def made(self) -> dict[str, list[LanguageRun]]:
        """Finished runs of each cell, by seed."""
        return {name: [run for run in self.grid.runs(name) if run.usable] for name in self.grid.cells}

    def documents(self, cell: str, split: str = "test", langs: Sequence[str] = ()) -> pd.DataFrame:
        """Bits of each document: rows (lang, corpus, document, bytes), a column a seed."""
        table = by_seed(self.made[cell], "bits.csv", ["split", "lang", "corpus", "document", "bytes"], "bits")
        table = table.loc[split]
        return table[table.index.isin(langs, level="lang")] if langs else table

    def losses(self, cell: str, split: str = "test", langs: Sequence[str] = ()) -> pd.Series:
        """Bits per byte, mean over languages, by seed."""
        table = self.documents(cell, split, langs)
        return (table.T * _weights(table)).sum(axis=1)

    def difference(self, ours: str, *theirs: str) -> Evidence:
        """Loss of one cell minus that of another, or the mean of others, paired by seed and document.

        Raises:
            ValueError: see `paired`.
        """
        first, others = self.documents(ours), reduce(add, map(self.documents, theirs))
        return paired(first, others / len(theirs), "bytes", _weights(first))

    def gain(self, ours: str, *theirs: str) -> Evidence:
        """`difference` as a share of the first cell's loss: how much lower the others' is."""
        return self.relative(self.difference(ours, *theirs), ours)

    def relative(self, bits: Evidence, cell: str) -> Evidence:
        """A difference of losses as a share of a cell's loss."""
        loss = float(self.losses(cell).mean())
        return bits.mapped(lambda value: value / loss)

    def table(self, names: Sequence[str], reference: str) -> pd.DataFrame:
        """A row per cell that has runs: `loss`, and its difference from a reference, `estimate`, `low`, `high`, `n`."""
        rows = {}
        for name in names:
            if self.made[name]:
                seeds = min(len(self.made[name]), len(self.made[reference]))
                own = self.difference(name, reference).row() if seeds > 1 and name != reference else {}
                rows[name] = {"loss": self.losses(name).mean(), **own}
        found = pd.DataFrame.from_dict(rows, orient="index", columns=["loss", "estimate", "low", "high", "n"])
        return found.astype({"n": "Int64"}) if rows else found

    def csv(self, cell: str, file: str) -> pd.DataFrame:
        """A table of the cell's runs, with their `seed`."""
        return pd.concat([pd.read_csv(run.record / file).assign(seed=run.train.seed) for run in self.made[cell]])

    def seed_mean(self, values: Sequence[float] | np.ndarray) -> Evidence:
        """Mean over seeds with Student's interval."""
        return SeedMean()(np.asarray(values, np.float64))

    # What each claim is judged on.

    def information(self, cell: str) -> np.ndarray:
        """Mutual information of expert and language in nats, languages weighted equally, mean over layers, by seed."""
        found = []
        for run in self.made[cell]:
            use = run.use()["test"].values
            share = use / use.sum(-1, keepdims=True)
            found.append(float((entropy(share.mean(0)) - entropy(share).mean(0)).mean()))
        return np.array(found)

    def misrouting(self, cell: str, noise: float = NOISE) -> np.ndarray:
        """Share of tokens mis-routed when language ids are wrong at a rate, by seed."""
        table = self.csv(cell, "wrong.csv")
        right = table["lang"] == table["told"]
        by_seed = [table[part].groupby("seed")["misrouted"].mean() for part in (right, ~right)]
        return ((1 - noise) * by_seed[0] + noise * by_seed[1]).to_numpy()

    def told_wrong(self, cell: str) -> np.ndarray:
        """Relative rise in loss on text that is told as another language, mean over languages, by seed."""
        table = self.csv(cell, "wrong.csv")
        table = table.assign(loss=table["bits"] / table["bytes"], right=table["lang"] == table["told"])
        loss = table.pivot_table(index="seed", columns="right", values="loss", aggfunc="mean")
        return (loss[False] / loss[True] - 1).to_numpy()

    def noise_curve(self, cell: str, rates: Sequence[float] | np.ndarray) -> pd.DataFrame:
        """Loss and mis-routing over the rate of wrong language ids, mean over languages and seeds; columns `noise`,
        `loss`, `misrouted`."""
        table = self.csv(cell, "wrong.csv")
        table["loss"] = table["bits"] / table["bytes"]
        means = table.groupby(table["lang"] == table["told"])["loss"].mean()
        rows = [
            {"noise": q, "loss": (1 - q) * means[True] + q * means[False],
             "misrouted": float(self.misrouting(cell, q).mean())}
            for q in rates
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def settled(self) -> np.ndarray:
        """Tokens until a language's use of experts has settled, mean over layers, `(seed, lang)`."""
        uses = [run.use() for run in self.made[BASE]]
        return np.array([settled_tokens(use["dev"].values, use["tokens_seen"].values) for use in uses])

    def settling(self) -> pd.DataFrame:
        """Rows are languages, columns `settled` (geometric mean over seeds of tokens) and `share` of the stream."""
        shares, codes = self.made[BASE][0].result()["shares"], list(self.grid.languages)
        settled = np.exp(np.log(self.settled()).mean(0))
        return pd.DataFrame({"settled": settled, "share": [shares[code] for code in codes]}, index=codes)

    def rarity(self) -> Evidence:
        """P9: factor of tokens until use has settled for a tenth of the share, by a straight line through the
        logarithms; seeds are models, languages are sampled too."""
        rare = -np.log10(self.settling()["share"].to_numpy())
        rare, tokens = rare - rare.mean(), np.log10(self.settled())
        tokens = tokens - tokens.mean(1, keepdims=True)
        return PairedDifference()(rare * tokens, rare**2).mapped(lambda power: 10**power)

    def load(self, cell: str) -> np.ndarray:
        """Load of the expert that each language uses most (found on dev text) over the mean load, on test text in the
        stream's proportions, mean over layers, `(seed, lang)`."""
        found = []
        for run in self.made[cell]:
            use, shares = run.use(), run.result()["shares"]
            best = use["dev"].isel(tokens_seen=-1).values.argmax(-1)
            test = use["test"].values / use["test"].values.sum(-1, keepdims=True)
            load = np.einsum("lxe,l->xe", test, [shares[code] for code in use["lang"].values])
            found.append(load[np.arange(len(load)), best].mean(1) * load.shape[1])
        return np.array(found)

    def speed(self) -> tuple[str, np.ndarray]:
        """P15: the faster kernel, and the speed of the layers with it relative to full precision, by seed (median of
        turns)."""
        results = [run.result()["int8"]["speed"] for run in self.made[BASE]]
        by_kernel = {kernel: np.array([np.median(r[kernel]) for r in results]) for kernel in results[0]}
        best = max(by_kernel, key=lambda kernel: by_kernel[kernel].mean())
        return best, by_kernel[best]

    def agreement(self) -> float:
        """Adjusted Rand index of families and clusters of routing."""
        groups = [self.grid.groups(self.grid.cells[name], 0) for name in ("family", "clusters")]
        return float(adjusted_rand_score(*groups))


def _weights(table: pd.DataFrame) -> np.ndarray:
    """Weight of each document's bits, so that the sum is bits per byte, mean over languages."""
    index = table.index.to_frame(index=False)
    totals = index.groupby("lang")["bytes"].transform("sum")
    return (1 / (totals * index["lang"].nunique())).to_numpy(np.float64)


def settled_tokens(use: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Tokens until use `(probe, lang, layer, expert)` is half as far from the last one as the first was, `(lang,)`:
    total variation, mean over layers; interpolated over log tokens, the first probe standing at a hundredth of the
    second."""
    share = use / use.sum(-1, keepdims=True)
    distance = np.abs(share - share[-1]).sum(-1).mean(-1) / 2
    at = np.log(np.maximum(tokens.astype(np.float64), tokens[1] / 100))
    found = []
    for path in distance.T:
        half = path[0] / 2
        first = int(np.argmax(path <= half))
        before, after = path[first - 1], path[first]
        part = (before - half) / (before - after) if before > after else 0.0
        found.append(at[first - 1] + part * (at[first] - at[first - 1]) if first else at[0])
    return np.exp(np.array(found))
