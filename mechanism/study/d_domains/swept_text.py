"""What the text of a sweep shows of a model beside the sweep itself, and its record: routing of every token, mean
outputs of experts, and experts taken from single tokens."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measure.output_change import kl_of_change
from ...models.passes import batches_by_length, encode, pad, padded_batches, padding_token, routed_tokens
from ...models.work import Work, padded
from ...trace import Site, expert_means, find_sites
from ...trace.continuation import CleanPass, Via
from ...trace.proof import proven
from ...trace.reach import spread, touched
from ..base.records import recorded, recorded_of
from ..base.study import Study
from .domain_text import SWEEP, SweepConfig, passages
from .driver_experts import Swept
from .effects import FIRST, BatchSweep, Settings
from .sweep import OPTIONS, record_key, tokens_at_once

STUDY = "text of a sweep"
PROBES = 2
"""Tokens of each segment that are probed."""
BATCH, FOLD = 4096, 1024  # tokens that are passed, and continued, together
SHARE_OF = 16
"""Segments from which it is told how many experts a segment selects."""
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


def observe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SweepConfig = SWEEP) -> xr.Dataset:
    """Of every text token the `sequence` of the sweep that it is in, its `place` there (0 first), the `length` of that
    in text tokens, its `id`, and the experts in its slots, `index` over `(token, layer, slot)`, -1 where a slot holds
    none; `mean_output` of each expert over the tokens that select it, `(layer, expert, d)`; and `probe_tokens` under
    `probe_NAME`, where the model can be continued.

    Raises:
        CorpusError, TraceError: see `sweep`.
    """
    ids = encode(tokenizer, [p.text for p in passages(config)], config.max_tokens)
    padding = padding_token(tokenizer)
    routed = routed_tokens(model, ids, padding)
    batches = (
        {"input_ids": t, "attention_mask": m, "use_cache": False} for _, t, m in padded_batches(model, ids, padding)
    )
    means, experts = expert_means(model, batches, FIRST), routed.experts
    outputs = np.stack([means[layer][:experts].float().cpu().numpy() for layer in routed.layers])
    data = {
        "sequence": ("token", routed.sequence), "place": ("token", routed.place), "length": ("token", routed.length),
        "id": ("token", routed.token), "index": (("token", "layer", "slot"), routed.index.astype(np.int16)),
        "mean_output": (("layer", "expert", "d"), outputs),
    }  # fmt: skip
    found = xr.Dataset(data, {"layer": list(routed.layers)})
    probes = probe_tokens(model, ids, padding, PROBES, config.seed)
    return found if probes is None else found.merge(probes.rename({name: f"probe_{name}" for name in probes.data_vars}))


def _address(spec: str, dtype: str, config: SweepConfig) -> tuple[dict, str]:
    """What the record is found by: the sweep's own key, but for its name and what only ablation needs."""
    key, data = record_key(spec, config, dtype)
    return {**{name: value for name, value in key.items() if name not in ("modes", "means")}, "study": STUDY}, data


def study(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    swept: Swept,
    spec: str,
    dtype: str = "float32",
    profile: str = "auto",
) -> xr.Dataset:
    """`observe` for the text of a sweep: recorded beside a recorded sweep under the profile `full`, read from there if
    it is there, computed at once otherwise.

    Args:
        spec, dtype: of the model, for the address of its record.
    """

    def seen() -> xr.Dataset:
        return observe(model, tokenizer, swept.config)

    if "record" not in swept.found.attrs:
        return seen()
    asked = Study(*_address(spec, dtype, swept.config), seen, seen, f"mechanism sweep {spec}", spec)
    return asked.result("full" if profile == "full" else "auto")


def others(spec: str, dtype: str = "float32", config: SweepConfig = SWEEP) -> dict[str, xr.Dataset]:
    """The records of the other training seeds, by name."""
    return recorded_of(spec, *_address(spec, dtype, config))


def sweep_work(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str,
    config: SweepConfig, sample: int,
) -> list[Work]:  # fmt: skip
    """Work of `sweep.study` and `study`, arguments as there; none where the sweep is recorded. Segments are
    taken to select as many different experts as the first ones do, and every way of ablation to restart where zero
    ablation does."""
    if profile != "small" and recorded(*record_key(spec, config, dtype)) is not None:
        return []
    full, sites = profile == "full", find_sites(model)
    config = config if full else replace(config, max_segments=sample)
    ids = encode(tokenizer, [p.text for p in passages(config)], config.max_tokens)
    lengths, layers = list(map(len, ids)), len(sites)
    few, padding, experts = ids[:SHARE_OF], padding_token(tokenizer), max(site.num_experts for site in sites)
    seen = routed_tokens(model, few, padding)
    pairs = float((seen.counts() > 0).sum((1, 2)).mean()) / layers  # experts that a segment selects in a layer
    tokens, mask = (t.to(model.device) for t in pad(few, padding))
    way = proven(model, tokens, mask, ("zero",), first=FIRST)
    batches = batches_by_length(ids, tokens_at_once(model, OPTIONS.memory, config.modes))
    passed = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    above = layers * (layers - 1) / 2  # layers above the one that is ablated, over all of them
    if "zero" not in way.via:  # whole passes, of all segments for each expert, and no single tokens
        above, pairs = layers * layers, experts
    probed = ("zero" in way.via) * PROBES * max(site.top_k * site.heads for site in sites)
    clean = passed * (1 + ("mean" in config.modes)) + 4 * padded(lengths)
    cells = len(ids) * layers * experts * (3 * len(config.modes) + 3)
    slots = sum(lengths) * layers * max(site.top_k * site.heads for site in sites)
    return [
        Work("sweeps", float(passed * above * (pairs * len(config.modes) + probed))),
        Work("routes", float(clean * layers), 4 * cells + 2 * slots if full else 0),
    ]


def timed_sweep(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Callable[[], object]:
    """A few experts of a middle layer ablated, ready to be timed: as many as fill the passes of a sweep."""
    own = encode(tokenizer, texts[:8], 64)
    ids, mask = (t.to(model.device) for t in pad(own, padding_token(tokenizer)))
    way, sites = proven(model, ids, mask, ("zero",), first=FIRST), find_sites(model)
    middle = sites[(len(sites) - 1) // 2]  # of two layers the first: what is passed again is the layers above
    with torch.no_grad():
        swept = BatchSweep(model, ids, mask, Settings(way=way, layers=(middle.layer,)))
    return lambda: swept.run({middle.layer: range(min(8, middle.num_experts))})
