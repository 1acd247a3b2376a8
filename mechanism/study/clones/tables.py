"""What the records of models of clone languages say, by cell of their grid and by seed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.evidence import Evidence
from ...measure.paired import SeedMean
from ...measure.profile import depth_windows, dip, window
from .grid import PROBES, SEGMENTS, CloneGrid, CloneRun

BASE, TWIN, ALONE, SAME = "base", "dense", "no bilingual", "shared 1"
MODELLED = 1.0
"""Nats per token by which the loss on a clone must lie below that on one that is never read."""
QUANTITIES = ("divergence", "shuffled")


@dataclass(frozen=True)
class Clones:
    """Records of a grid."""

    grid: CloneGrid

    @cached_property
    def made(self) -> dict[str, list[CloneRun]]:
        """The runs of each cell, by seed, without those that diverged; a cell of which a run is missing is left out."""
        found = {cell: self.grid.runs(cell) for cell in self.grid.cells}
        whole = {cell: [run for run in runs if run.usable] for cell, runs in found.items() if all(r.done for r in runs)}
        return {cell: runs for cell, runs in whole.items() if runs}

    @cached_property
    def _segments(self) -> dict[str, list[xr.Dataset]]:
        return {cell: [self._observation(run) for run in runs] for cell, runs in self.made.items()}

    def observations(self, cell: str) -> list[xr.Dataset]:
        """Every test segment in every language at the end of each run of a cell, as `observe` has natural languages:
        `divergence`, `shuffled`, `entropy`, `consistency`, `nll` (per token), `hits_centred`, `cluster` of each
        segment, and in the attributes the `pivot` and the number of `experts`.

        Raises:
            ValueError: a run of the cell is missing, or all diverged.
        """
        if cell not in self.made:
            makes = f"`mechanism train --grid {self.grid.name}` makes them"
            raise ValueError(f"the runs of {cell!r} are not all there: {makes}")
        return self._segments[cell]

    def _observation(self, run: CloneRun) -> xr.Dataset:
        own = xr.load_dataset(run.record / SEGMENTS).rename(document="cluster", hits="hits_centred")
        own = own.assign_coords({"layer": np.arange(own.sizes["layer"])} if "layer" in own.dims else {})
        return own.assign_attrs(corpus="clones", pivot="en", experts=own.sizes.get("expert", 0))

    def unread(self, cell: str) -> list[str]:
        """Languages that no run of a cell reads."""
        clones = self.made[cell][0].clones
        return [name for name, share in zip(clones.names, clones.shares, strict=True) if not share]

    def trained(self, cell: str) -> list[str]:
        """English, and the clones that are read and modelled in every run of a cell: their loss per token lies at least
        `MODELLED` below that of the clone that is never read."""
        loss = self.losses(cell)
        bound = loss[self.unread(cell)].min(axis=1) - MODELLED
        return [name for name in loss if (loss[name] < bound).all()]

    def learnt(self, cell: str) -> list[str]:
        """`trained` without English."""
        return [name for name in self.trained(cell) if name != "en"]

    def losses(self, cell: str) -> pd.DataFrame:
        """Nats per token of test text: a row a seed, a column a language."""
        rows = {run.train.seed: run.result()["loss"] for run in self.made[cell]}
        return self._in_order(rows)

    def read(self, cell: str) -> pd.DataFrame:
        """Tokens read: a row a seed, a column a language."""
        return self._in_order({run.train.seed: run.result()["read"] for run in self.made[cell]})

    def _in_order(self, rows: Mapping[int, Mapping[str, float]]) -> pd.DataFrame:
        """Numbers by seed and language, English first; records have their names in alphabetical order."""
        return pd.DataFrame(
            rows, sorted(next(iter(rows.values())), key=lambda name: (name != "en", name))
        ).T.rename_axis("seed")

    def profiles(self, cell: str, quantity: str = "divergence") -> pd.DataFrame:
        """A quantity by layer (rows) and language, mean over test segments and seeds."""
        each = [own[quantity].mean("segment").transpose("layer", "lang").to_pandas() for own in self.observations(cell)]
        return sum(each[1:], each[0]) / len(each)

    def over_seeds(self, cell: str, quantity: str = "divergence") -> pd.DataFrame:
        """Mean over trained clones by layer (`divergence`, `shuffled`, `entropy`) or state (`hits_centred`):
        `estimate`, and where there are several seeds Student's interval, `low` and `high`."""
        clones = self.learnt(cell)
        each = [own[quantity].sel(lang=clones).mean(("lang", "segment")).to_pandas() for own in self.observations(cell)]
        table = pd.DataFrame(each)
        rows = {at: _over(table[at].to_numpy(np.float64)).row() for at in table}
        return pd.DataFrame(rows).T[["estimate", "low", "high"]].rename_axis(table.columns.name)

    def deepest(self, cell: str) -> list[np.ndarray]:
        """For each seed, the third of the layers, contiguous and between the first and the last sixth, where divergence
        of trained clones is lowest in the other seeds; in its own where there is no other."""
        clones = self.learnt(cell)
        each = [own["divergence"].sel(lang=clones).mean(("lang", "segment")).values for own in self.observations(cell)]
        layers = len(each[0])
        size = int(depth_windows(layers)["middle"].sum())
        inner = np.flatnonzero(~(window(layers, 0.0, 1 / 6) | window(layers, 5 / 6, 1.0)))
        places = [np.isin(np.arange(layers), inner[i : i + size]) for i in range(len(inner) - size + 1)]
        found = []
        for seed in range(len(each)):
            others = [own for i, own in enumerate(each) if i != seed] or each
            mean = np.mean(others, 0)
            found.append(places[int(np.argmin([mean[place].mean() for place in places]))])
        return found

    def dials(self) -> pd.DataFrame:
        """A row per cell that routes: `runs`; `U`, see `dip`, of divergence, `U, shuffled` of shuffled pairs, and `U,
        deepest` with the window of `deepest` in place of the middle third; `middle`, divergence there; `content`, the
        share by which it lies below that of shuffled pairs; `retrieval` in the best middle state; `clones` that are
        modelled, and `loss` on them. Each is the mean over trained clones, then over seeds, with `low` and `high`
        behind its name."""
        rows = {}
        for cell in self.made:
            if "divergence" in self.observations(cell)[0]:
                clones = self.learnt(cell)
                rows[cell] = {"runs": len(self.made[cell]), "clones": len(clones)} | self._dials(cell, clones)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cell")

    def _dials(self, cell: str, clones: list[str]) -> dict[str, float]:
        if not clones:
            return {}
        by_name: dict[str, list[float]] = {}
        for own, deepest in zip(self.observations(cell), self.deepest(cell), strict=True):
            part = own.sel(lang=clones)
            means = {name: part[name].mean("segment").transpose("lang", "layer").values for name in QUANTITIES}
            found = _shared(means, part["hits_centred"].mean("segment"))
            found["U, shuffled"] = dip(means["shuffled"]).mean()
            found["U, deepest"] = _dip_at(means["divergence"], deepest).mean()
            found["loss"] = part["nll"].mean().item()
            for name, value in found.items():
                by_name.setdefault(name, []).append(float(value))
        columns: dict[str, float] = {}
        for name, each in by_name.items():
            mean = _over(np.array(each))
            columns |= {name: mean.estimate, f"{name}, low": mean.low, f"{name}, high": mean.high}
        return columns

    def emergence(self, cell: str) -> pd.DataFrame:
        """Over training tokens, mean over trained clones and seeds: `U`, `middle` (divergence there), `content`, and
        `retrieval` in the best middle state."""
        clones = self.learnt(cell)
        tables = [
            pd.DataFrame(dict(_emerged(xr.load_dataset(run.record / PROBES), clones))).T for run in self.made[cell]
        ]
        return (sum(tables[1:], tables[0]) / len(tables)).rename_axis("tokens_seen")


def _emerged(probes: xr.Dataset, clones: list[str]) -> Iterator[tuple[int, dict[str, float]]]:
    for tokens in map(int, probes["tokens_seen"].values):
        own = probes.sel(tokens_seen=tokens, lang=clones)
        means = {name: own[name].transpose("lang", "layer").values.astype(np.float64) for name in QUANTITIES}
        yield tokens, _shared(means, own["hits"])


def _shared(means: dict[str, np.ndarray], hits: xr.DataArray) -> dict[str, float]:
    """`U`, `middle`, `content` and `retrieval` (see `Clones.dials`), means over languages.

    Args:
        means: of `QUANTITIES`, `(lang, layer)`; hits: retrieval, over `lang` and `state`.
    """
    middle = depth_windows(means["divergence"].shape[1])["middle"]
    inside, shuffled = (means[name][:, middle].mean(1) for name in QUANTITIES)
    return {
        "U": float(dip(means["divergence"]).mean()), "middle": float(inside.mean()),
        "content": float((1 - inside / np.maximum(shuffled, 1e-9)).mean()),
        "retrieval": hits.isel(state=slice(1, None)).isel(state=middle).mean("lang").max().item(),
    }  # fmt: skip


def _dip_at(profile: np.ndarray, place: np.ndarray) -> np.ndarray:
    """`dip` with another place than the middle third."""
    ends = [profile[..., depth_windows(profile.shape[-1])[end]].mean(-1) for end in ("start", "end")]
    return np.asarray(1 - profile[..., place].mean(-1) / np.minimum(*ends))


def _over(values: np.ndarray) -> Evidence:
    """Mean over seeds with Student's interval; without one for a single seed."""
    if len(values) > 1:
        return SeedMean()(values)
    return Evidence(float(values[0]), np.nan, np.nan, 1)
