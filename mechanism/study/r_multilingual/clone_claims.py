"""The evidence on claims of chapter R in models of clone languages, by the same definitions as in natural ones."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr

from ...measure.evidence import Evidence
from ...measure.paired import SeedMean
from ...measure.profile import depth_windows
from ..clones.tables import ALONE, BASE, TWIN, Clones
from .effects import WIDE, Seeds, quality_and_divergence
from .quality import explained


def claims(clones: Clones, seed: int = 0) -> dict[str, Evidence | str]:
    """What R1 to R4 and R9 to R12 are judged on, or the reason why they cannot be. A model is one seed of the grid's
    base; what each claim says of natural languages is asked of the clones that the models have learnt."""
    judges: dict[str, Callable[[Clones, int], Evidence]] = {
        "R1": _dip,
        "R2": _correlation,
        "R3": lambda own, seed: _seeds(own, BASE, seed).falls(),
        "R4": _resources,
        "R9": _apart,
        "R10": _beside_twin,
        "R11": _explained,
        "R12": _without_bilingual,
    }
    found: dict[str, Evidence | str] = {}
    for claim, judge in judges.items():
        try:
            found[claim] = judge(clones, seed)
        except ValueError as reason:
            found[claim] = str(reason)
    return found


def _seeds(clones: Clones, cell: str, seed: int, quantity: str = "divergence") -> Seeds:
    """Effects over the seeds of a cell, in the clones that the base has learnt."""
    each = [own[[name for name in own if "segment" in own[name].dims]] for own in clones.observations(cell)]
    if quantity != "divergence":
        each = [own.assign(divergence=own[quantity]) for own in each]
    parts = {f"seed {run.train.seed}": {WIDE: own} for run, own in zip(clones.made[cell], each, strict=True)}
    return Seeds(parts, seed=seed, trained=clones.trained(BASE), unknown=clones.unread(BASE))


def _dip(clones: Clones, seed: int) -> Evidence:
    shuffled = _seeds(clones, BASE, seed, "shuffled").dip()
    return _seeds(clones, BASE, seed).dip().against(shuffled.estimate)


def _correlation(clones: Clones, seed: int) -> Evidence:
    learnt, every = (
        _tanh([_pearson(quality_and_divergence(own, codes)) for own in clones.observations(BASE)])
        for codes in (_learnt(clones), [*_learnt(clones), *clones.unread(BASE)])
    )
    note = f"among those that are learnt {learnt.estimate:.2f} [{learnt.low:.2f}, {learnt.high:.2f}]"
    return every.against(learnt.high, note=note)


def _pearson(table: pd.DataFrame) -> float:
    return float(np.corrcoef(table["quality"], table["divergence"])[0, 1])


def _tanh(correlations: Sequence[float]) -> Evidence:
    """Mean over seeds of Fisher's z, as a correlation."""
    return SeedMean()(np.arctanh(np.clip(correlations, -0.999, 0.999))).mapped(np.tanh)


def _apart(clones: Clones, seed: int) -> Evidence:
    """See `Seeds.apart`; there is one unknown clone, so that seeds alone are resampled."""
    found = apart_by_layer(clones).to_numpy().T
    layers = [SeedMean()(values) for values in found.T]
    least = min(range(len(layers)), key=lambda layer: layers[layer].low)
    note = f"least in layer {least}: {layers[least].estimate:.2f} [{layers[least].low:.2f}, {layers[least].high:.2f}]"
    return SeedMean()(np.mean(found, 1)).against(layers[least].low, note=note)


def _beside_twin(clones: Clones, seed: int) -> Evidence:
    return _seeds(clones, BASE, seed).gain().against(_seeds(clones, TWIN, seed).gain().estimate)


def _learnt(clones: Clones) -> list[str]:
    return clones.learnt(BASE)


def by_clone(clones: Clones, own: xr.Dataset, number: int) -> pd.DataFrame:
    """Of the seed with a number: a row per learnt clone, with `quality` (minus the logarithm of the loss over
    English's), `divergence` in the middle third, `distance` of hidden states behind it, `log_train` (logarithm of
    tokens read) and `consistency`, mean over layers."""
    names, middle = _learnt(clones), depth_windows(own.sizes["layer"])["middle"]
    part = own.sel(lang=names)
    nll = own["nll"].mean("segment")
    table = {
        "quality": -np.log(nll.sel(lang=names).values / nll.sel(lang="en").item()),
        "divergence": part["divergence"].isel(layer=middle).mean(("segment", "layer")).values,
        "distance": part["distance"].isel(state=slice(1, None)).isel(state=middle).mean("state").values,
        "log_train": np.log(clones.read(BASE).iloc[number][names].to_numpy(np.float64)),
        "consistency": part["consistency"].mean(("segment", "layer")).values,
    }
    return pd.DataFrame(table, pd.Index(names, name="lang"), dtype=np.float64)


def tables(clones: Clones) -> list[pd.DataFrame]:
    """`by_clone` of each seed of the base."""
    return [by_clone(clones, own, number) for number, own in enumerate(clones.observations(BASE))]


def _resources(clones: Clones, seed: int) -> Evidence:
    found = _tanh([spearmanr(own["log_train"], own["consistency"]).statistic for own in tables(clones)])
    return found._replace(note=f"over {len(_learnt(clones))} clones in each of {found.n} models")


def _explained(clones: Clones, seed: int) -> Evidence:
    whole = pd.concat(tables(clones)).groupby(level="lang", sort=False).mean()
    row = explained(whole, base=("distance", "log_train"), seed=seed)
    if pd.isna(row["value"]):
        raise ValueError(f"{row['n']:.0f} clones are too few, or what is compared does not vary")
    return Evidence.of_row(row, "value")


def _without_bilingual(clones: Clones, seed: int) -> Evidence:
    middles: dict[str, dict[int, float]] = {}
    for cell in (BASE, ALONE):
        for run, own in zip(clones.made.get(cell, []), clones.observations(cell), strict=True):
            middle = depth_windows(own.sizes["layer"])["middle"]
            part = own["divergence"].sel(lang=_learnt(clones)).isel(layer=middle)
            middles.setdefault(cell, {})[run.train.seed] = part.mean().item()
    seeds = sorted(middles[BASE].keys() & middles[ALONE].keys())
    return SeedMean()(np.array([middles[ALONE][s] / middles[BASE][s] - 1 for s in seeds]))


def links_by_layer(clones: Clones) -> pd.DataFrame:
    """Pearson correlation over learnt clones of quality with divergence, by layer (rows) and seed."""
    found = {}
    for run, own, table in zip(clones.made[BASE], clones.observations(BASE), tables(clones), strict=True):
        each = own["divergence"].sel(lang=list(table.index)).mean("segment").transpose("layer", "lang").values
        with suppress(ValueError):
            found[f"seed {run.train.seed}"] = [np.corrcoef(row, table["quality"])[0, 1] for row in each]
    return pd.DataFrame(found).rename_axis("layer")


def apart_by_layer(clones: Clones) -> pd.DataFrame:
    """Divergence of the clone that is never read over that of learnt ones, minus 1, by layer (rows) and seed."""
    found = {}
    for run, own in zip(clones.made[BASE], clones.observations(BASE), strict=True):
        mean = own["divergence"].mean("segment").transpose("layer", "lang")
        strange, known = (mean.sel(lang=codes).mean("lang").values for codes in (clones.unread(BASE), _learnt(clones)))
        found[f"seed {run.train.seed}"] = strange / known - 1
    return pd.DataFrame(found).rename_axis("layer")
