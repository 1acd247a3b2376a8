"""An expert taken from a single token: what it does there and to the tokens that follow, and whether a metric foretells
which of a token's experts matters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor
from transformers import PreTrainedModel

from ...measure.output_change import kl_of_change
from ...measure.seeds import Sampled, over_seeds
from ...models.passes import batches_by_length, pad
from ...trace import Site, find_sites
from ...trace.continuation import CleanPass, Via
from ...trace.proof import proven
from ...trace.reach import spread, touched
from .driver_experts import KINDS, Swept
from .effects import FIRST

PROBES = 2
"""Tokens of each segment that are probed."""
BATCH, FOLD = 4096, 1024  # tokens that are passed, and continued, together
NUMBERS = ("weight", "size", "kl", "later")
OWN = MappingProxyType({"weight": "gate weight at the token", "size": "size of the output at the token"})
"""What a token itself shows of its experts: controls, in which the test must find something if it can."""
TOKEN = "the token itself"
EFFECTS: Mapping[str, Callable[[xr.Dataset], np.ndarray]] = MappingProxyType({
    "at the token": lambda text: text["probe_kl"].values,
    "at the token, logarithm": lambda text: np.log(np.maximum(text["probe_kl"].values, 1e-12)),
    "at the tokens that follow": lambda text: text["probe_later"].values,
})  # fmt: skip
"""Ways to count an effect, the one that is judged first."""


def drawn_tokens(lengths: Sequence[int], each: int = PROBES, seed: int = 0) -> np.ndarray:
    """`(probe, 2)` sequence and position of so many text tokens of each sequence, all of a shorter one; `lengths` count
    the opening token, which is never drawn."""
    rng = np.random.default_rng(seed)
    sizes = [max(0, n - FIRST) for n in lengths]
    return np.array([
        (i, FIRST + p) for i, n in enumerate(sizes) for p in sorted(rng.choice(n, min(each, n), replace=False))
    ])  # fmt: skip


@torch.no_grad()
def probe_tokens(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], padding: int, each: int = PROBES, seed: int = 0
) -> xr.Dataset | None:
    """Take each expert that a token selects from that token alone, one layer at a time.

    Args:
        each: tokens of a sequence; seed: of their draw.

    Returns:
        Over `(probe, layer, slot)` the `expert` (-1 where a slot holds none), its gate `weight` and the `size` of what
        it adds at the token, `kl` of the next-token distribution there, and `later`, the sum of that over the tokens
        that follow in the segment, in nats; each probe's `sequence` and `place`, 0 for the first text token. None where
        the model cannot be continued from after a layer, see `trace.proof`.
    """
    sites, where = find_sites(model), drawn_tokens(list(map(len, ids)), each, seed)
    shape = len(where), len(sites), max(site.top_k * site.heads for site in sites)
    found, chosen, way = {name: np.full(shape, np.nan) for name in NUMBERS}, np.full(shape, -1), None
    for batch in batches_by_length(ids, BATCH):
        tokens, mask = (t.to(model.device) for t in pad([ids[i] for i in batch], padding))
        way = way or proven(model, tokens, mask, ("zero",), first=FIRST)
        if "zero" not in way.via:
            return None
        clean = CleanPass(model, tokens, mask, sites, first=FIRST)
        probes = np.flatnonzero(np.isin(where[:, 0], batch))
        row = {sequence: at for at, sequence in enumerate(batch)}
        at_row, at_pos = torch.tensor([(row[i], p) for i, p in where[probes].tolist()], device=tokens.device).T
        for at, site in enumerate(sites):
            index = clean.index[site.layer][at_row, at_pos]
            index = index.where((index >= 0) & (index < site.num_experts), -1)
            chosen[probes, at, : index.shape[1]] = index.cpu().numpy()
            item, slot = (index >= 0).nonzero(as_tuple=True)
            cases = _Cases(clean, site, way.via["zero"], index[item, slot], at_row[item], at_pos[item])
            own = probes[item.cpu().numpy()], at, slot.cpu().numpy()
            found["weight"][own] = clean.weight(site.layer)[at_row, at_pos][item, slot].float().cpu().numpy()
            for name, values in cases.effects().items():
                found[name][own] = values.cpu().numpy()
            clean.forget(site.layer)
    data = {name: (("probe", "layer", "slot"), values) for name, values in found.items()}
    data["expert"] = ("probe", "layer", "slot"), chosen.astype(np.int16)
    places = {"sequence": ("probe", where[:, 0]), "place": ("probe", where[:, 1] - FIRST)}
    return xr.Dataset({**data, **places}, {"layer": [site.layer for site in sites]})


class _Cases:
    """Experts of a layer, each taken from one token: `expert`, `row` and `pos` are `(case,)`."""

    def __init__(self, clean: CleanPass, site: Site, via: Via, expert: Tensor, row: Tensor, pos: Tensor) -> None:
        self.clean, self.layer, self.via = clean, site.layer, via
        self.expert, self.row, self.pos = expert, row, pos
        self.old = clean.logits

    def effects(self) -> dict[str, Tensor]:
        """`(case,)` each: `size`, `kl` and `later`."""
        each = max(1, FOLD // self.clean.mask.shape[1])
        parts = [self._part(part) for part in torch.arange(len(self.row), device=self.row.device).split(each)]
        return {name: torch.cat([part[name] for part in parts]) for name in ("size", "kl", "later")}

    def _part(self, cases: Tensor) -> dict[str, Tensor]:
        clean, row, pos = self.clean, self.row[cases], self.pos[cases]
        alone = torch.arange(clean.mask.shape[1], device=pos.device) == pos[:, None]
        change = spread(clean, self.layer, clean.change(self.layer, "zero"), self.expert[cases], row)
        tokens = change.reshape(*alone.shape, -1) * alone.unsqueeze(-1)
        counted = touched(clean, self.layer, alone) & clean.acts[row]
        new = clean.go_on(self.layer, row, tokens.reshape(change.shape), counted, self.via)
        item, at = counted.nonzero(as_tuple=True)
        old = self.old[row[item], at].float()
        kl = kl_of_change(old.softmax(-1), new.float() - old).kl
        here = at == pos[item]
        sums = torch.zeros(len(cases), dtype=torch.float64, device=kl.device)
        return {"size": tokens.norm(dim=-1).sum(1), "kl": sums.index_add(0, item, kl.where(here, 0)),
                "later": sums.index_add(0, item, kl.where(~here, 0))}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Foretold:
    """Of each token and layer, the effect of taking away the expert that a metric ranks first among those that the
    token selects, less that of the one it ranks last: Cohen's d of the difference over tokens.

    Attributes:
        swept: the sweep; text: see `swept_text.observe`, with probes; effect: one of `EFFECTS`.
    """

    swept: Swept
    text: xr.Dataset
    effect: str = next(iter(EFFECTS))

    @property
    def probed(self) -> bool:
        """Whether experts were taken from single tokens."""
        return "probe_kl" in self.text

    @cached_property
    def kinds(self) -> pd.Series:
        """Kind of each metric by its name: of `KINDS`, or `TOKEN`."""
        every = {name: KINDS.get(name, "routing") for name in self.swept.metrics()}
        return pd.Series(every | dict.fromkeys(OWN.values(), TOKEN))

    @cached_property
    def differences(self) -> np.ndarray:
        """`(metric, probe, layer)`; NaN where the metric ranks no two experts of the token."""
        expert = self.text["probe_expert"].values.astype(np.int64)
        layer = np.arange(expert.shape[1])[:, None]
        metrics = [np.where(expert >= 0, values[layer, expert], np.nan) for values in self.swept.metrics().values()]
        metrics += [self.text[f"probe_{name}"].values for name in OWN]
        effects = EFFECTS[self.effect](self.text)
        return np.stack([_first_less_last(np.where(np.isnan(own), -np.inf, own), own, effects) for own in metrics])

    def d(self, times: np.ndarray | None = None) -> np.ndarray:
        """`(metric, layer)` Cohen's d, sequences counting so many times; 0 where nothing differs."""
        weight = np.ones(self.swept.found.sizes["sequence"]) if times is None else times
        known = ~np.isnan(self.differences)
        values, each = np.where(known, self.differences, 0), weight[self.text["probe_sequence"].values]
        count, first, second = (np.einsum("p,mpl->ml", each, own) for own in (known * 1.0, values, values**2))
        mean = first / np.maximum(count, 1)
        spread = np.sqrt(np.maximum(second / np.maximum(count, 1) - mean**2, 0))
        return np.asarray(np.where(spread > 1e-12, mean / np.where(spread > 0, spread, 1), 0))

    def best(self, kind: str = "routing") -> Sampled:
        """Cohen's d of the pair of metric and layer with the largest, of a kind: chosen on one half of the documents
        and taken on the other, both ways. Draws take documents anew."""
        effects, at = self.swept.kl("zero"), (self.kinds == kind).to_numpy()
        halves = effects.halves(self.swept.seed)

        def crossed(times: np.ndarray) -> float:
            first, second = (self.d(half * times)[at] for half in halves)
            return float(np.mean([_at_largest(first, second), _at_largest(second, first)]))

        draws = [crossed(times) for times in effects.resamples(self.swept.n_boot, self.swept.seed)]
        return Sampled(crossed(np.ones(len(effects.values))), np.array(draws))


def _first_less_last(ranked: np.ndarray, metric: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """`(probe, layer)` from `(probe, layer, slot)`; -inf in `ranked` and NaN in the others mark empty slots."""
    first, last = (
        np.expand_dims(at, -1) for at in (ranked.argmax(-1), np.where(np.isnan(metric), np.inf, metric).argmin(-1))
    )
    value, effect = ([np.take_along_axis(own, at, -1)[..., 0] for at in (first, last)] for own in (metric, effects))
    return np.asarray(np.where(value[0] > value[1], effect[0] - effect[1], np.nan))


def _at_largest(chosen: np.ndarray, counted: np.ndarray) -> float:
    at = np.unravel_index(np.abs(chosen).argmax(), chosen.shape)
    return float(np.sign(chosen[at]) * counted[at])


def by_layer(models: Sequence[Foretold]) -> pd.DataFrame:
    """Cohen's d by metric (rows) and layer, mean over models."""
    first = models[0]
    values = np.mean([own.d() for own in models], 0)
    return pd.DataFrame(values, first.kinds.index, first.swept.layers).rename_axis("metric")


def by_kind(models: Sequence[tuple[Swept, xr.Dataset]]) -> pd.DataFrame:
    """`Foretold.best` over models: a row a kind of metric and way to count an effect."""
    rows = []
    for effect in EFFECTS:
        each = [Foretold(swept, text, effect) for swept, text in models]
        for kind in pd.unique(each[0].kinds):
            rows.append({"metrics": kind, "effect": effect, **over_seeds([own.best(kind) for own in each]).row()})
    return pd.DataFrame(rows)
