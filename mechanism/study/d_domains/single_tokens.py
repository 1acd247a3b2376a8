"""An expert taken from a single token: what it does there and to the tokens that follow."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from transformers import PreTrainedModel

from ...measure.output_change import kl_of_change
from ...models.passes import batches_by_length, pad
from ...trace import Site, find_sites
from ...trace.continuation import CleanPass, Via
from ...trace.proof import proven
from ...trace.reach import spread, touched
from .effects import FIRST

PROBES = 2
"""Tokens of each segment that are probed."""
BATCH, FOLD = 4096, 1024  # tokens that are passed, and continued, together
NUMBERS = ("weight", "size", "kl", "later")


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
