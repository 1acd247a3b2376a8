"""What the records of the cross-lingual grid say: numbers for claims P4 to P13 and P15."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score

from ..measure.correlation import Correlation
from ..measure.divergence import entropy
from ..measure.paired import PairedDifference, SeedMean
from ..measure.statistics import Estimate
from .cross_grid import BASE, CrossGrid, CrossRun

Evidence = dict[str, Any]
NOISE = 0.08
ENOUGH = 0.9
BOUNDS = (0.01, 100.0)


@dataclass(frozen=True)
class CrossExperiment:
    """The records of a grid.

    Attributes:
        grid: what was planned; seed: of bootstraps and permutations.
    """

    grid: CrossGrid
    seed: int = 0

    @cached_property
    def made(self) -> dict[str, list[CrossRun]]:
        """Finished runs of each cell, by seed."""
        return {name: [run for run in self.grid.runs(name) if run.done] for name in self.grid.cells}

    def missing(self) -> str:
        """What is not there and the command that makes it; empty when all is."""
        lacking = [
            f"{name} {len(self.made[name])} of {cell.seeds or self.grid.seeds}"
            for name, cell in self.grid.cells.items()
            if len(self.made[name]) < (cell.seeds or self.grid.seeds)
        ]
        if not lacking:
            return ""
        return (
            f"Not made yet: {'; '.join(lacking)}. `mechanism train --grid {self.grid.name}` makes the missing runs; "
            "what needs them is left out, and the claims that need them stay undecided."
        )

    def documents(self, cell: str, split: str = "test", langs: Sequence[str] = ()) -> pd.DataFrame:
        """Bits of each document: rows (lang, corpus, document, bytes), a column a seed."""
        columns = {}
        for run in self.made[cell]:
            table = pd.read_csv(run.record / "bits.csv")
            table = table[(table["split"] == split) & (table["lang"].isin(langs) if langs else True)]
            columns[run.train.seed] = table.set_index(["lang", "corpus", "document", "bytes"])["bits"]
        return pd.DataFrame(columns)

    def losses(self, cell: str, split: str = "test", langs: Sequence[str] = ()) -> pd.Series:
        """Bits per byte, mean over languages, by seed."""
        table = self.documents(cell, split, langs)
        return (table.T * _weights(table)).sum(axis=1)

    def difference(self, ours: str, theirs: str) -> Estimate:
        """Loss of one cell minus that of another, paired by seed and document.

        Raises:
            ValueError: the two were scored on different documents.
        """
        first, second = self.documents(ours), self.documents(theirs)
        if not first.index.equals(second.index):
            raise ValueError(f"{ours} and {theirs} were scored on different documents; make the runs again")
        weights = _weights(first)
        seeds = sorted(set(first) & set(second))
        scaled = ((first[seeds] - second[seeds]).T * weights).to_numpy(np.float64)
        share = weights * first.index.get_level_values("bytes").to_numpy(np.float64)
        return PairedDifference()(scaled, share)

    def table(self, names: Sequence[str], reference: str) -> pd.DataFrame:
        """A row per cell that has runs: `loss`, and its difference from a reference, `estimate`, `low`, `high`, `n`."""
        rows = {}
        for name in names:
            if self.made[name]:
                paired = len(self.made[name]) > 1 and len(self.made[reference]) > 1 and name != reference
                own = self.difference(name, reference) if paired else [np.nan] * 4
                rows[name] = {
                    "loss": self.losses(name).mean(),
                    **dict(zip(("estimate", "low", "high", "n"), own, strict=True)),
                }
        found = pd.DataFrame.from_dict(rows, orient="index")
        return found.astype({"n": "Int64"}) if rows else found

    def csv(self, cell: str, file: str) -> pd.DataFrame:
        """A table of the cell's runs, with their `seed`."""
        return pd.concat([pd.read_csv(run.record / file).assign(seed=run.train.seed) for run in self.made[cell]])

    def seed_mean(self, values: Sequence[float] | np.ndarray) -> Estimate:
        """Mean over seeds with Student's interval."""
        return SeedMean()(np.asarray(values, np.float64))

    # What each claim is judged on.

    def growth(self) -> Estimate:
        """P4: factor of feed-forward parameters for ten times the languages at equal loss on those in common."""
        common = self.grid.languages[: self.grid.cells["4 languages 8 experts"].languages]
        loss = {
            (n, e): self.losses(f"{n} languages {e} experts", langs=common).to_numpy() for n in (4, 16) for e in (8, 32)
        }
        size = {e: self.made[f"16 languages {e} experts"][0].result()["feed_forward"] for e in (8, 32)}
        slope = (loss[16, 32] - loss[16, 8]) / np.log(size[32] / size[8])
        needed = loss[4, 8] - loss[16, 8]
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.where(slope < 0, needed / slope, np.where(needed >= 0, -np.inf, np.inf)) / np.log10(4)
        found = self.seed_mean(np.clip(steps, *np.log(BOUNDS)))
        value, low, high = np.clip(np.exp(found[:3]), *BOUNDS).tolist()
        return Estimate(value, low, high, found.n)

    def adaptation(self) -> pd.DataFrame:
        """Losses along adaptation: `seed`, `method`, `tuned`, `share` of all parameters, `step`, `new` (loss on the new
        language) and `old` (mean loss on the others)."""
        table = self.csv(BASE, "adapt.csv")
        table["loss"] = table["bits"] / table["bytes"]
        table["side"] = np.where(table["lang"] == self.grid.new_language, "new", "old")
        keys = ["seed", "method", "tuned", "step"]
        found = table.pivot_table(index=keys, columns="side", values="loss", aggfunc="mean").reset_index()
        return found.assign(share=found["tuned"] / self.made[BASE][0].result()["parameters"])

    def needed_share(self) -> Estimate:
        """P5: smallest share of parameters that reaches 90 % of the fall by tuning everything; interval: over seeds."""
        falls = _falls(self.adaptation())
        by_seed = [_smallest(own) for _, own in falls.groupby("seed")]
        mean = falls.groupby("method", as_index=False)[["share", "fall"]].mean()
        return Estimate(_smallest(mean), min(by_seed), max(by_seed), len(by_seed))

    def retained(self, frozen: str = "experts 2", free: str = "all") -> Estimate:
        """P6: share of the rise on earlier languages that freezing avoids at equal fall on the new one.

        Raises:
            ValueError: tuning everything forgot nothing, so that there is nothing to avoid.
        """
        table, avoided = self.adaptation(), []
        for _, own in table.groupby("seed"):
            paths = {name: own[own["method"] == name].sort_values("step") for name in (frozen, free)}
            falls = {name: (path["new"].iloc[0] - path["new"]).to_numpy() for name, path in paths.items()}
            rises = {name: (path["old"] - path["old"].iloc[0]).to_numpy() for name, path in paths.items()}
            equal = min(fall[-1] for fall in falls.values())
            rise = {name: float(np.interp(equal, np.maximum.accumulate(falls[name]), rises[name])) for name in paths}
            if rise[free] <= 0:
                raise ValueError("tuning everything forgot nothing: there is nothing to avoid")
            avoided.append(1 - rise[frozen] / rise[free])
        return self.seed_mean(avoided)

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

    def settling(self) -> pd.DataFrame:
        """Tokens until a language's use of experts has settled, mean over layers and seeds: rows are languages, columns
        `settled` (geometric mean of tokens) and `share` of the stream."""
        logs = [
            np.log(settled_tokens(run.use()["dev"].values, run.use()["tokens_seen"].values)) for run in self.made[BASE]
        ]
        shares = self.made[BASE][0].result()["shares"]
        codes = self.grid.languages
        return pd.DataFrame(
            {"settled": np.exp(np.mean(logs, 0)), "share": [shares[c] for c in codes]}, index=list(codes)
        )

    def english_load(self, cell: str) -> np.ndarray:
        """Load of the expert that the first language uses most (found on dev text) over the mean load, on test text in
        the stream's proportions, mean over layers, by seed."""
        found = []
        for run in self.made[cell]:
            use, shares = run.use(), run.result()["shares"]
            best = use["dev"].isel(tokens_seen=-1, lang=0).values.argmax(-1)
            test = use["test"].values / use["test"].values.sum(-1, keepdims=True)
            load = np.einsum("lxe,l->xe", test, [shares[code] for code in use["lang"].values])
            found.append(float(load[np.arange(len(load)), best].mean() * load.shape[1]))
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


def _falls(table: pd.DataFrame) -> pd.DataFrame:
    """Fall of the loss on the new language by seed and method, with the share that was tuned."""
    ordered = table.sort_values("step").groupby(["seed", "method", "share"])["new"]
    return (ordered.first() - ordered.last()).rename("fall").reset_index()


def _smallest(falls: pd.DataFrame) -> float:
    full = float(falls.loc[falls["method"] == "all", "fall"].iloc[0])
    return float(falls.loc[falls["fall"] >= ENOUGH * full, "share"].min())


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


def _judged(found: Estimate, null: float | None = None, p: float | None = None, note: str = "") -> Evidence:
    bounds = {"estimate": float(found[0]), "low": float(found[1]), "high": float(found[2]), "n": int(found[3])}
    return {**bounds, "null": null, "p": p, "note": note}


def _p4(x: CrossExperiment) -> Evidence:
    found = x.growth()
    note = ""
    if np.isclose(found.value, BOUNDS[0]):
        note = "at the lower bound: the smaller model of 16 languages, with 4 times the steps, is better than that of 4"
    elif np.isclose(found.value, BOUNDS[1]):
        note = "at the upper bound: more experts do not bring 16 languages to the loss of 4"
    return _judged(found, note=note)


def _p7(x: CrossExperiment) -> Evidence:
    base, kinds = x.information("none"), ("added", "concatenated")
    gain = np.mean([x.information(kind) for kind in kinds], 0) / base - 1
    worse = float(np.mean([x.difference(kind, "none").value for kind in kinds]))
    return _judged(x.seed_mean(gain), worse)


def _p9(x: CrossExperiment) -> Evidence:
    table = x.settling()
    found = Correlation("spearman", seed=x.seed)(table["settled"].to_numpy(), np.log(table["share"]).to_numpy())
    return _judged(Estimate(found.value, found.low, found.high, found.n), p=found.p)


def _p10(x: CrossExperiment) -> Evidence:
    return _judged(
        x.seed_mean(x.english_load("unbalanced")), float(np.median(x.made[BASE][0].result()["balance_time"]))
    )


def _p11(x: CrossExperiment) -> Evidence:
    found = x.difference("none half", "distilled half")
    return _judged(found, -x.difference("distilled half", "none").value)


def _p12(x: CrossExperiment) -> Evidence:
    loss = float(x.losses("dedicated").mean())
    found = x.difference("family", "dedicated")
    relative = Estimate(found.value / loss, found.low / loss, found.high / loss, found.n)
    return _judged(relative, x.difference("random", "dedicated").value / loss)


def _p13(x: CrossExperiment) -> Evidence:
    best = min(("alpha 0.3", "alpha 1"), key=lambda cell: float(x.losses(cell, "dev").mean()))
    end = min(("alpha 0", "dedicated"), key=lambda cell: float(x.losses(cell).mean()))
    return _judged(x.difference(best, end), note=f"{best} against {end}")


def _p15(x: CrossExperiment) -> Evidence:
    kernel, speed = x.speed()
    saved = float(np.mean([run.result()["int8"]["saved"] for run in x.made[BASE]]))
    return _judged(x.seed_mean(speed), saved, note=f"kernel {kernel}")


_SIZES = tuple(f"{n} languages {e} experts" for n in (4, 16) for e in (8, 32))
JUDGES: dict[str, tuple[tuple[str, ...], Callable[[CrossExperiment], Evidence]]] = {
    "P4": (_SIZES, _p4),
    "P5": ((BASE,), lambda x: _judged(x.needed_share())),
    "P6": ((BASE,), lambda x: _judged(x.retained())),
    "P7": (("none", "added", "concatenated"), _p7),
    "P8": (("dedicated", "redundant"),
           lambda x: _judged(x.seed_mean(x.misrouting("redundant")), float(x.misrouting("dedicated").mean()))),
    "P9": ((BASE,), _p9),
    "P10": ((BASE, "unbalanced"), _p10),
    "P11": (("none", "none half", "distilled half"), _p11),
    "P12": (("dedicated", "family", "random"), _p12),
    "P13": (("dedicated", "alpha 0", "alpha 0.3", "alpha 1"), _p13),
    "P15": ((BASE,), _p15),
}  # fmt: skip
"""For each claim, the cells it needs and how it is judged."""


def cross_evidence(experiment: CrossExperiment) -> dict[str, Evidence | str]:
    """What each claim is judged on, as `data/claims.yaml` fixes it: `estimate`, `low`, `high`, `n`, `null`, `p`,
    `note`; or the reason why it cannot be judged: runs that are missing, or numbers that say nothing."""
    found: dict[str, Evidence | str] = {}
    for claim, (cells, judge) in JUDGES.items():
        if not experiment.grid.complete(*cells):
            found[claim] = f"it needs all runs of {', '.join(cells)}, see above"
            continue
        try:
            found[claim] = judge(experiment)
        except ValueError as reason:
            found[claim] = str(reason)
    return found
