"""What the runs of the multi-head grid say: perplexity in pairs, experts in use, time and memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Evidence
from ...measure.paired import PairedDifference, SeedMean
from ...nn.accounting import Count
from ...nn.parity import source_table
from ..base import runs as training_runs
from .grid import Grid, GridRun, load_grid

LABELS = {
    "dense": "dense", "sparse": "sparse", "fine_grained": "fine-grained", "heads2": "2 heads", "heads3": "3 heads",
    "heads2_none": "neither layer", "heads2_head": "head layer only", "heads2_merge": "merge layer only",
}  # fmt: skip
ORDER = (("heads2", "sparse"), ("heads2", "fine_grained"), ("heads3", "heads2"))
"""Comparisons of the source's order, better first."""
ACTIVE = 0.5
NOTHING = Evidence(np.nan, np.nan, np.nan, np.nan)  # type: ignore[arg-type]
Cell = tuple[str, str]


@dataclass(frozen=True)
class Experiment:
    """The records of a grid.

    Attributes:
        grid: what was planned; confidence: coverage of intervals.
    """

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
        told = [self._diverged(), self._lacking()]
        if self.times is None:
            told.append("Times of steps are not measured: `mechanism bench steps --write` does it.")
        return " ".join(filter(None, told))

    def _diverged(self) -> str:
        lost = [run.name for cell in self.grid.cells() for run in self.grid.runs(*cell) if run.done and not run.usable]
        return f"Diverged, and left out: {', '.join(lost)}." if lost else ""

    def _lacking(self) -> str:
        made = {cell: sum(run.done for run in self.grid.runs(*cell)) for cell in self.grid.cells()}
        lacking = [
            f"{block} {LABELS[variant]} {made[block, variant]} of {self.grid.blocks[block].seeds}"
            for block, variant in self.grid.cells()
            if made[block, variant] < self.grid.blocks[block].seeds
        ]
        if not lacking:
            return ""
        return (
            f"Seeds made so far: {'; '.join(lacking)}. `mechanism train --grid {self.grid.name}` makes the missing "
            "runs; what needs them is left out, and the claims that need them stay undecided."
        )

    def cell(self, block: str, variant: str) -> Cell:
        """Where a variant's runs stand: the full layer of the ablation is that of the plain block."""
        return (block, variant) if (block, variant) in self.made else ("plain", variant)

    def documents(self, cell: Cell) -> pd.DataFrame:
        """Loss of each test document, summed over its tokens: rows (corpus, document, tokens), a column a seed."""
        columns = {
            run.train.seed: pd.read_csv(run.record / "test.csv").set_index(["corpus", "document", "tokens"])["nll"]
            for run in self.made[cell]
        }
        return pd.DataFrame(columns)

    def difference(self, ours: Cell, theirs: Cell, corpus: str | None = None) -> Evidence | None:
        """Log perplexity of one variant minus that of another, paired by seed and document; None below two common
        seeds.

        Args:
            corpus: of which the test text is taken; all of them by default.
        """
        pair = [self.documents(self.cell(*cell)) for cell in (ours, theirs)]
        seeds = sorted(set(pair[0]) & set(pair[1]))
        if len(seeds) < 2:
            return None
        first, second = (table if corpus is None else table.loc[[corpus]] for table in pair)
        if not first.index.equals(second.index):
            raise ValueError(f"{ours} and {theirs} were scored on different documents; make the runs again")
        tokens = first.index.get_level_values("tokens").to_numpy(np.float64)
        return PairedDifference(self.confidence)((first[seeds] - second[seeds]).to_numpy().T, tokens)

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
            paired = None if variant == reference else self.difference((block, variant), (block, reference))
            rows[variant] = {"ppl": found["all"], **(paired or NOTHING).row()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def order(self, block: str, pairs: Sequence[tuple[str, str]] = ORDER) -> pd.DataFrame:
        """The source's comparisons, a row each: `estimate`, `low`, `high`, `n`; the interval that reaches highest
        first. Empty where a run is missing."""
        found = {f"{a} - {b}": self.difference((block, a), (block, b)) for a, b in pairs}
        if any(estimate is None for estimate in found.values()):
            return pd.DataFrame()
        table = pd.DataFrame({name: own.row() for name, own in found.items() if own}).T
        return table.sort_values("high", ascending=False)

    def curves(self, cell: Cell, span: int = 10) -> pd.DataFrame:
        """Training loss over `tokens`, an exponential moving average over recorded steps, a column a seed."""
        columns = {
            run.train.seed: pd.read_csv(run.record / "metrics.csv").set_index("tokens")["loss"]
            for run in self.made[cell]
        }
        return pd.DataFrame(columns).ewm(span=span).mean() if columns else pd.DataFrame()

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
        if not results or "selections" not in next(iter(results.values())):
            return None
        one = next(iter(results.values()))
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


def load_experiment(grid: str) -> Experiment:
    """The records of a grid by its name; see `load_grid`."""
    return Experiment(load_grid(grid))


def parity_table() -> pd.DataFrame:
    """The source's layers beside exact parity with its sparse layer (M1), a row each: see `nn.parity.source_table`."""
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


def grid_table(grid: Grid, block: str = "plain") -> pd.DataFrame:
    """Sizes of a block's layers and models: `experts`, `top_k`, `heads`, `width`; `FLOPs` of a token and `parameters`
    of the experts and square layers, `router FLOPs`, and `model parameters`."""
    rows = {}
    for variant in grid.blocks[block].variants:
        layer, model = grid.layer(block, variant), grid.model(block, variant)
        parts = layer.parts()
        router = parts.pop("router", Count())
        body = sum(parts.values(), Count())
        sizes = {name: getattr(layer, name, None) for name in ("experts", "top_k", "heads")}
        rows[LABELS[variant]] = sizes | {
            "width": layer.width, "FLOPs": body.flops, "parameters": body.total, "router FLOPs": router.flops,
            "model parameters": model.parameters(),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")
