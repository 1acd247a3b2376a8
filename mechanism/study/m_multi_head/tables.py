"""What the runs of the multi-head grid say: perplexity in pairs, experts in use, time and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Evidence
from ...measure.paired import SeedMean
from ...nn.accounting import Count
from ...nn.parity import source_table
from ..base import runs as training_runs
from ..grid.records import by_seed, paired
from .grid import LABELS, Grid
from .training import GridRun

ORDER = (("heads2", "sparse"), ("heads2", "fine_grained"), ("heads3", "heads2"))
"""Comparisons of the source's order, better first."""
ADDED = {
    "sparse": (("plain", "sparse"), ("layers", "sparse_both")),
    "fine_grained": (("plain", "fine_grained"), ("layers", "fine_grained_both")),
    "heads2": (("ablation", "heads2_none"), ("plain", "heads2")),
}
"""Without and with head and merge layers, as in the source's table 4."""
BY_HEADS = {
    1: ("layers", "sparse_both"), 2: ("plain", "heads2"), 3: ("plain", "heads3"), 4: ("heads", "heads4"),
    6: ("heads", "heads6"),
}  # fmt: skip
BY_EXPERTS = {7: "plain", 13: "experts13", 25: "experts25"}
"""Blocks by the experts of their baseline."""
ACTIVE = 0.5
UNTIMED = "are not measured: `mechanism bench steps --write` does it"
Cell = tuple[str, str]


@dataclass(frozen=True)
class Experiment:
    """The records of a grid; `confidence` is the coverage of intervals."""

    grid: Grid
    confidence: float = 0.95

    @cached_property
    def made(self) -> dict[Cell, list[GridRun]]:
        """Finished runs of each block and variant, by seed, those left out that diverged."""
        return {cell: [run for run in self.grid.runs(*cell) if run.usable] for cell in self.grid.cells()}

    @cached_property
    def times(self) -> pd.DataFrame | None:
        """What `mechanism bench steps --write` measured; None before it was run."""
        path = steps_record(self.grid)
        return pd.read_csv(path) if path.exists() else None

    @property
    def empty(self) -> bool:
        """Whether no run is there."""
        return not any(self.made.values())

    def missing(self) -> str:
        """What is not there and the command that makes it, and what diverged; empty when all is well."""
        times = f"Times of steps {UNTIMED}." if self.times is None else ""
        return " ".join(filter(None, (self.grid.lacking(), times)))

    def cell(self, block: str, variant: str) -> Cell:
        """Where a variant's runs stand: the full layer of the ablation is that of the plain block."""
        return (block, variant) if (block, variant) in self.made else ("plain", variant)

    def documents(self, cell: Cell) -> pd.DataFrame:
        """Loss of each test document, summed over its tokens: rows (corpus, document, tokens), a column a seed."""
        return by_seed(self.made[cell], "test.csv", ["corpus", "document", "tokens"], "nll")

    def difference(self, ours: Cell, theirs: Cell) -> Evidence:
        """Log perplexity of one variant minus that of another, paired by seed and document.

        Raises:
            ValueError: see `paired`.
        """
        first, second = (self.documents(self.cell(*cell)) for cell in (ours, theirs))
        return paired(first, second, "tokens", confidence=self.confidence)

    def perplexity(self, cell: Cell) -> pd.Series:
        """Perplexity by corpus, and over `all` test text, the geometric mean over seeds; empty without a run."""
        table = self.documents(cell)
        if table.empty:
            return pd.Series(dtype=float)
        nll = table.mean(axis=1).reset_index(name="nll")
        sums = nll.groupby("corpus", sort=False)[["nll", "tokens"]].sum()
        sums.loc["all"] = sums.sum()
        return np.exp(sums["nll"] / sums["tokens"])

    def against(self, block: str, reference: str, variants: Sequence[str] = ()) -> pd.DataFrame:
        """A row per variant of a block with runs: `ppl`, and its difference in log perplexity from a reference,
        `estimate`, `low`, `high`, `n` seeds, NaN where there is none."""
        rows = {}
        for variant in variants or self.grid.blocks[block].variants:
            found = self.perplexity(self.cell(block, variant))
            if found.empty:
                continue
            rows[variant] = {"ppl": found["all"]}
            seeds = [{run.train.seed for run in self.made[self.cell(block, one)]} for one in (variant, reference)]
            if variant != reference and len(set.intersection(*seeds)) > 1:
                rows[variant] |= self.difference((block, variant), (block, reference)).row()
        columns = ["ppl", "estimate", "low", "high", "n"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns if rows else None)

    def order(self, block: str, pairs: Sequence[tuple[str, str]] = ORDER) -> pd.DataFrame:
        """The source's comparisons, a row each: `estimate`, `low`, `high`, `n`; the interval that reaches highest
        first.

        Raises:
            ValueError: see `paired`.
        """
        found = {f"{a} - {b}": self.difference((block, a), (block, b)).row() for a, b in pairs}
        return pd.DataFrame(found).T.sort_values("high", ascending=False)

    def added(self) -> pd.DataFrame:
        """What head and merge layers change, a row per variant of `ADDED` that is made with and without: `without` and
        `with`, perplexity, and their difference in log perplexity, `estimate`, `low`, `high`, `n` seeds."""
        return self._pairs(ADDED, ("without", "with"))

    def by_heads(self) -> pd.DataFrame:
        """By number of heads, each with head and merge layer and as many slots: `sparse` and `ppl`, perplexity, and its
        difference from the sparse layer at parity, as in `added`."""
        return self._pairs({n: (("plain", "sparse"), cell) for n, cell in BY_HEADS.items()}, ("sparse", "ppl"))

    def by_experts(self) -> pd.DataFrame:
        """By number of experts of the sparse layer: `sparse` and `ppl` of two heads at parity with it, and their
        difference, as in `added`."""
        pairs = {n: ((block, "sparse"), (block, "heads2")) for n, block in BY_EXPERTS.items()}
        return self._pairs(pairs, ("sparse", "ppl"))

    def _pairs(self, pairs: Mapping[Any, tuple[Cell, Cell]], names: tuple[str, str]) -> pd.DataFrame:
        """A row for each pair of which both have runs: their perplexities, and the second's difference from the first
        in log perplexity, over the seeds that both have."""
        rows = {}
        for key, (first, second) in pairs.items():
            seeds = [{run.train.seed for run in self.made.get(cell, [])} for cell in (first, second)]
            if all(seeds):
                rows[key] = {name: self.perplexity(c)["all"] for name, c in zip(names, (first, second), strict=True)}
                if len(set.intersection(*seeds)) > 1:
                    rows[key] |= self.difference(second, first).row()
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=[*names, "estimate", "low", "high", "n"] if rows else None
        )

    def curves(self, cell: Cell) -> pd.DataFrame:
        """Training loss over `tokens`, an exponential moving average over recorded steps, a column a seed."""
        table = by_seed(self.made[cell], "metrics.csv", "tokens", "loss")
        return table if table.empty else table.ewm(span=10).mean()

    def facts(self, variant: str) -> pd.DataFrame:
        """A row per seed of a variant of the plain block: `flops` of a token's forward pass, `parameters`; and, of
        steps taken in turns, the median of `seconds`, and `kept_bytes` a token, NaN before they are measured."""
        names = ["flops", "parameters"]
        rows = {run.train.seed: {name: run.result()[name] for name in names} for run in self.made["plain", variant]}
        found = pd.DataFrame.from_dict(rows, orient="index", columns=names)
        if self.times is None:
            return found.assign(seconds=np.nan, kept_bytes=np.nan)
        own = self.times[self.times["variant"] == variant]
        return found.join(own.groupby("seed")[["seconds", "kept_bytes"]].median())

    def shares(self, cell: Cell) -> xr.DataArray | None:
        """Share of a layer's selections that each expert receives, `(seed, corpus, layer, expert)`; None without a
        run."""
        results = {run.train.seed: run.result() for run in self.made[cell]}
        one = next(iter(results.values()), {})
        if "selections" not in one:
            return None
        counts = np.array([list(result["selections"].values()) for result in results.values()], dtype=np.float64)
        coords = {"seed": list(results), "corpus": list(one["selections"]), "layer": one["layers"]}
        found = xr.DataArray(counts, dims=("seed", "corpus", "layer", "expert"), coords=coords)
        return found / found.sum("expert")

    def active(self, cell: Cell, threshold: float = ACTIVE) -> xr.DataArray | None:
        """Share of a layer's experts that receive at least `threshold` of the mean share, `(seed, corpus, layer)`."""
        shares = self.shares(cell)
        return None if shares is None else (shares >= threshold / shares.sizes["expert"]).mean("expert")

    def paired_mean(self, ours: pd.Series, theirs: pd.Series) -> Evidence:
        """Mean difference of two values by seed, with Student's interval."""
        return SeedMean(self.confidence)((ours - theirs).dropna().to_numpy(np.float64))


def steps_record(grid: Grid) -> Path:
    """Where the times of training steps stand that `mechanism bench steps --write` keeps."""
    return training_runs.RUNS / grid.name / "steps.csv"


def parity_table() -> pd.DataFrame:
    """The source's layers beside exact parity with its sparse layer, a row each: see `nn.parity.source_table`."""
    return pd.DataFrame(source_table()).set_index("layer")


def reproduced_entries() -> pd.DataFrame:
    """The entries of the source's table that parity determines: `printed` and `exact` width and number of experts of
    each layer but the baseline, and whether they are `equal`."""
    rows = [
        {"layer": row["layer"], "entry": entry, "printed": row[entry], "exact": row[f"{entry}_exact"]}
        for row in source_table()[1:]
        for entry in ("width", "experts")
    ]
    table = pd.DataFrame(rows)
    return table.assign(equal=table["printed"] == table["exact"])


def grid_table(grid: Grid) -> pd.DataFrame:
    """Sizes of the plain block's layers and models: `experts`, `top_k`, `heads`, `width`; `FLOPs` of a token and
    `parameters` of the experts and square layers, `router FLOPs`, and `model parameters`."""
    rows = {}
    for variant in grid.blocks["plain"].variants:
        layer, model = grid.layer("plain", variant), grid.model("plain", variant)
        parts = layer.parts()
        router = parts.pop("router", Count())
        body = sum(parts.values(), Count())
        sizes = {name: getattr(layer, name, None) for name in ("experts", "top_k", "heads")}
        rows[LABELS[variant]] = sizes | {
            "width": layer.width, "FLOPs": body.flops, "parameters": body.total, "router FLOPs": router.flops,
            "model parameters": model.parameters(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")
