"""Driver experts token by token: where tokens select them, and at which tokens their ablation matters."""

import string
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measure.causal import top_in_layers
from ...measure.output_change import kl_of_change
from ...measure.overlap import frequency_strata
from ...measure.position import Moments, PositionSlope, moments, relative_slopes
from ...measure.seeds import Sampled, over_seeds
from ...models.passes import pad, routed_passes, routed_tokens
from ...trace import Ablate
from ...trace.proof import naive_logits, proven
from .driver_experts import Swept
from .effects import FIRST, BatchSweep, Settings

SETTINGS = ("the claim", "first token kept", "super experts kept", "within kinds of token")


def token_class(text: str) -> str:
    """Coarse class of a token's text: `word start`, `inside word`, `number`, `punctuation`, `space` or `other`."""
    core = text.strip()
    if not core:
        return "space"
    if all(c in string.punctuation or unicodedata.category(c).startswith(("P", "S")) for c in core):
        return "punctuation"
    if any(c.isdigit() for c in core):
        return "number"
    if "\ufffd" in core:
        return "other"
    return "word start" if text[0].isspace() else "inside word"


@dataclass(frozen=True, eq=False)
class DriverTokens:
    """Tables over the tokens of a sweep's text.

    Attributes:
        swept: the sweep; text: see `swept_text.observe`, of the same sequences.
    """

    swept: Swept
    text: xr.Dataset

    def of(self, name: str) -> np.ndarray:
        """`(token,)` `sequence`, `place`, `length` or `id`."""
        return np.asarray(self.text[name].values)

    @cached_property
    def selected(self) -> np.ndarray:
        """`(token, layer, expert)` bool: what each token selects."""
        index = self.text["index"].values.astype(np.int64)
        chosen = np.zeros((*index.shape[:2], self.swept.effect.shape[1] + 1), dtype=bool)
        np.put_along_axis(chosen, index, True, -1)  # an empty slot, -1, is the last column
        return chosen[..., :-1]

    @property
    def relative(self) -> np.ndarray:
        """`(token,)` position in the segment from 0, first, to 1, last; NaN where the segment is a single token."""
        return self.of("place") / np.where(self.of("length") > 1, self.of("length") - 1, np.nan)

    @cached_property
    def strata(self) -> np.ndarray:
        """`(expert,)` over all layers: layer and half of frequency, within which experts match."""
        return frequency_strata(self.swept.rate, 2).ravel()

    def parts(self, setting: str) -> list[tuple[Moments, np.ndarray]]:
        """Sums over the tokens of one half of the documents with the drivers on the other, both ways, under one of
        `SETTINGS`."""
        swept, effects = self.swept, self.swept.kl("zero")
        left_out = swept.failed if setting == "super experts kept" else swept.left_out
        counted = np.isfinite(self.relative) & ((self.of("place") > 0) | (setting == "first token kept"))
        documents = np.unique(np.char.add(np.char.add(effects.stratum, "\0"), effects.document), return_inverse=True)[1]
        sequence, found = self.of("sequence"), []
        halves = effects.halves(swept.seed)
        for choosing, counting in (halves, halves[::-1]):
            member = top_in_layers(effects.mean(choosing), swept.share, left_out).ravel()
            own = np.flatnonzero(counted & (counting[sequence] > 0))
            document = np.unique(documents[sequence[own]], return_inverse=True)[1]
            kind = self.of("id")[own] if setting == "within kinds of token" else None
            chosen = self.selected[own].reshape(len(own), -1)
            found.append((moments(self.relative[own], chosen, document, kind), member))
        return found

    def slope(self, setting: str = SETTINGS[0]) -> Sampled:
        """Relative slope on the position of the number of drivers that a token selects, less that of matched experts,
        under one of `SETTINGS`."""
        measure = PositionSlope(self.swept.n_perm, self.swept.seed, self.swept.n_boot)
        return measure(self.parts(setting), self.strata)

    def by_position(self, bins: int = 10) -> pd.DataFrame:
        """Mean number of drivers selected by relative position: `position` (middle of the bin), `drivers`, and
        `matched`: as many experts' mean number, drawn from the same layers and halves of frequency."""
        drivers, strata = self.swept.is_driver.ravel(), self.strata
        kept = np.isfinite(self.relative)
        number = np.minimum((self.relative[kept] * bins).astype(int), bins - 1)
        flat = self.selected[kept].reshape(int(kept.sum()), -1)
        means = np.stack([flat[number == b].mean(0) if (number == b).any() else np.full(flat.shape[1], np.nan)
                          for b in range(bins)])  # fmt: skip
        expected = np.array([drivers[strata == s].mean() for s in strata])
        return pd.DataFrame({"position": (np.arange(bins) + 0.5) / bins, "drivers": means[:, drivers].sum(1),
                             "matched": means @ expected})  # fmt: skip

    def by_class(self, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
        """Mean number of drivers that a token selects by its coarse class, `tokens` of it, and the same of first tokens
        of segments and of all others."""
        names = {i: token_class(tokenizer.decode([i])) for i in np.unique(self.of("id")).tolist()}
        number = self.selected[:, self.swept.is_driver].sum(1)
        frame = pd.DataFrame({"class": [names[i] for i in self.of("id").tolist()], "drivers": number})
        frame = pd.concat([frame, frame.assign(**{"class": np.where(self.of("place") == 0, "(first)", "(later)")})])
        return frame.groupby("class")["drivers"].agg(drivers="mean", tokens="size").sort_values("drivers")[::-1]


def slopes(models: Sequence[DriverTokens]) -> pd.DataFrame:
    """`DriverTokens.slope` over models: a row a setting of `SETTINGS` with `drivers`, their relative slope, `matched`,
    that of matched experts, and of the difference `estimate`, `low`, `high`, `null` (5th percentile of random experts
    exchanged within strata), `p` and `n` models."""
    rows = {}
    for setting in SETTINGS:
        raw = np.mean([relative_slopes(own.parts(setting), own.strata) for own in models], 0)
        found = over_seeds([own.slope(setting) for own in models], alternative="less")
        rows[setting] = {"drivers": raw[0], "matched": raw[1], **found.row(), "null": found.null, "p": found.p}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")


def driver_contexts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[Sequence[int]],
    padding: int,
    experts: Sequence[tuple[int, int]],
    count: int = 5,
    around: int = 8,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where each of some experts, given as (layer, expert), matters most: the tokens at which the divergence under zero
    ablation is largest, with the text before them and the token that follows.

    Returns:
        Contexts: `layer`, `expert`, `kl` in nats, `selects` (whether the token itself selects the expert), `before`,
        `token`, `next`. And of every text token, for each expert: `layer`, `expert`, `place`, `selects`, `kl` and the
        gate `weight` that the token gives it.
    """
    tokens, mask = (t.to(model.device) for t in pad(ids, padding))
    way = proven(model, tokens, mask, ("zero",), first=FIRST)
    wanted: dict[int, list[int]] = {}
    for layer, expert in experts:
        wanted.setdefault(layer, []).append(expert)
    found = BatchSweep(model, tokens, mask, Settings(way=way, layers=tuple(sorted(wanted)), keep=True)).run(wanted)
    assert found.token_kl is not None
    routed = routed_tokens(model, ids, padding, weight=True)
    every, rows = [], []
    for layer, expert in experts:
        kl = found.token_kl[0, routed.sequence, routed.place + 1, sorted(wanted).index(layer), expert]
        at = routed.layers.index(layer)
        own = routed.index[:, at] == expert
        weight = np.where(own, routed.weight[:, at], 0).sum(-1)
        table = pd.DataFrame({"layer": layer, "expert": expert, "place": routed.place, "selects": own.any(-1),
                              "kl": kl, "weight": weight, "sequence": routed.sequence}).dropna(subset="kl")  # fmt: skip
        every.append(table.drop(columns="sequence"))
        for row in table.sort_values("kl", ascending=False, kind="stable").head(count).itertuples():
            text, p = ids[row.sequence], row.place + 1
            before, token, after = (tokenizer.decode(part) for part in (text[max(1, p - around) : p], text[p : p + 1],
                                                                        text[p + 1 : p + 2]))  # fmt: skip
            rows.append({"layer": layer, "expert": expert, "kl": row.kl, "selects": row.selects, "before": before,
                         "token": token, "next": after})  # fmt: skip
    return pd.DataFrame(rows), pd.concat(every, ignore_index=True)


@torch.no_grad()
def opening_effects(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], padding: int, count: int = 5, most: int = 16
) -> pd.DataFrame:
    """Experts that serve the opening token, ablated (zero) there alone by whole passes: the `count` with the largest
    effect on text.

    Args:
        ids: tokens of a few sequences, each behind the same opening token.
        most: experts that are tried, those with the largest gate weights on that token.

    Returns:
        `layer`, `expert`; in nats per text token, `opening` when it is ablated on the opening token alone, and `text`
        when it is on text alone, as in a sweep.
    """
    (one,) = routed_passes(model, ids, padding, batch_tokens=sys.maxsize)
    old, text, served = one.output.logits, one.text, []
    for site in one.sites:
        index, weight = (t[0, 0].flatten().tolist() for t in (one.routing(site).index, one.routing(site).weight))
        served += [(w, site.layer, e) for e, w in zip(index, weight, strict=True) if 0 <= e < site.num_experts]
    pairs = list(dict.fromkeys((layer, expert) for _, layer, expert in sorted(served, reverse=True)))[:most]

    def effect(pair: tuple[int, int], positions: tuple[int, int | None]) -> float:
        new = naive_logits(model, one.ids, one.mask, Ablate((pair,), positions=positions))[text]
        return float(kl_of_change(old[text].float().softmax(-1), (new - old[text]).float()).kl.mean())

    rows: list[dict[str, Any]] = [{"layer": p[0], "expert": p[1], "opening": effect(p, (0, FIRST))} for p in pairs]
    rows = sorted(rows, key=lambda row: -row["opening"])[:count]
    return pd.DataFrame([{**row, "text": effect((row["layer"], row["expert"]), (FIRST, None))} for row in rows])
