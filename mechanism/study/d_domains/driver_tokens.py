"""Driver experts token by token: where tokens select them, which they are, and where the experts lie. Claims D4, D6."""

import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...measure.causal import top_count, top_experts
from ...measure.evidence import Evidence
from ...measure.neighbours import Grouping, GroupTest, cosine_distance
from ...measure.overlap import frequency_strata
from ...measure.position import PositionSlope, moments
from ...models.passes import pad, padded_batches
from ...trace import attach, find_sites
from ...trace.proof import proven
from ...trace.restart import one_position
from .driver_experts import Swept
from .effects import FIRST, BatchSweep, Settings

SETTINGS = ("the claim", "first token kept", "super experts kept", "within kinds of token")


@dataclass(frozen=True, eq=False)
class TokenRouting:
    """What each text token selects; the tokens that open sequences are left out.

    Attributes:
        sequence: number of the token's sequence; place: 0 for the first text token; length: text tokens of its
            sequence; token: its id.
        selected: `(token, layer, expert)` bool.
    """

    sequence: np.ndarray
    place: np.ndarray
    length: np.ndarray
    token: np.ndarray
    selected: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """Position in the segment from 0, first, to 1, last; NaN where the segment is a single token."""
        return self.place / np.where(self.length > 1, self.length - 1, np.nan)


@torch.no_grad()
def route_tokens(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], padding: int, batch_tokens: int = 4096
) -> TokenRouting:
    """Routing of every token of some sequences, each behind the token that opens it."""
    sites = find_sites(model)
    experts = max(site.num_experts for site in sites)
    lean = one_position(model)
    rows: list[dict[str, np.ndarray]] = []
    for batch, tokens, mask in padded_batches(model, ids, padding, batch_tokens):
        with attach(model) as trace:
            model(input_ids=tokens, attention_mask=mask, use_cache=False, **lean)
        tokens, mask = tokens.cpu(), mask.cpu()
        text = (mask[:, 1:] != 0).numpy()
        chosen = np.zeros((int(text.sum()), len(sites), experts), dtype=bool)
        for at, site in enumerate(sites):
            index = trace.records[0].layers[site.layer].index.flatten(2)[:, 1:].numpy()[text]
            token, slot = np.nonzero((index >= 0) & (index < site.num_experts))
            chosen[token, at, index[token, slot]] = True
        row, place = np.nonzero(text)
        number = np.array(batch)[row]
        own = {"sequence": number, "place": place, "length": text.sum(1)[row], "token": tokens[:, 1:].numpy()[text]}
        rows.append({**own, "selected": chosen})
    return TokenRouting(**{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})


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
        swept: the sweep; tokens: routing of the same sequences.
    """

    swept: Swept
    tokens: TokenRouting

    def slopes(self) -> pd.DataFrame:
        """Relative slope of the number of drivers that a token selects on its relative position, by setting: rows of
        `SETTINGS`, columns as `Evidence`. Drivers are chosen on one half of the documents and counted on
        the other, both ways."""
        rows = {}
        for setting in SETTINGS:
            rows[setting] = self.slope(setting)._asdict()
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")

    def slope(self, setting: str) -> Evidence:
        """The slope under one of `SETTINGS` (claim D4)."""
        swept, tokens = self.swept, self.tokens
        effects = swept.kl("zero")
        left_out = swept.failed if setting == "super experts kept" else swept.left_out
        count = top_count(int((~left_out).sum()), swept.share)
        kept = np.isfinite(tokens.relative) & ((tokens.place > 0) | (setting == "first token kept"))
        documents = np.unique(np.char.add(np.char.add(effects.stratum, "\0"), effects.document), return_inverse=True)[1]
        parts = []
        halves = effects.halves(swept.seed)
        for choosing, counting in (halves, halves[::-1]):
            member = top_experts(effects.mean(choosing), count, left_out).ravel()
            own = kept & (counting[tokens.sequence] > 0)
            document = np.unique(documents[tokens.sequence[own]], return_inverse=True)[1]
            kind = tokens.token[own] if setting == "within kinds of token" else None
            chosen = tokens.selected[own].reshape(int(own.sum()), -1)
            parts.append((moments(tokens.relative[own], chosen, document, kind), member))
        measure = PositionSlope(n_boot=swept.n_boot, n_perm=swept.n_perm, seed=swept.seed)
        return measure(parts, frequency_strata(swept.rate, 2).ravel())

    def by_position(self, bins: int = 10) -> pd.DataFrame:
        """Mean number of drivers selected by relative position: `position` (middle of the bin), `drivers`, and
        `matched`: as many experts' mean number, drawn from the same layers and halves of frequency."""
        tokens, strata = self.tokens, frequency_strata(self.swept.rate, 2).ravel()
        drivers = self.swept.drivers.ravel()
        kept = np.isfinite(tokens.relative)
        number = np.minimum((tokens.relative[kept] * bins).astype(int), bins - 1)
        flat = tokens.selected[kept].reshape(int(kept.sum()), -1)
        means = np.stack([flat[number == b].mean(0) if (number == b).any() else np.full(flat.shape[1], np.nan)
                          for b in range(bins)])  # fmt: skip
        expected = np.array([drivers[strata == s].mean() for s in strata])
        return pd.DataFrame({"position": (np.arange(bins) + 0.5) / bins, "drivers": means[:, drivers].sum(1),
                             "matched": means @ expected})  # fmt: skip

    def by_class(self, tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
        """Mean number of drivers that a token selects by its coarse class, `tokens` of it, and the same of first tokens
        of segments and of all others."""
        tokens = self.tokens
        names = {i: token_class(tokenizer.decode([i])) for i in np.unique(tokens.token).tolist()}
        number = tokens.selected[:, self.swept.drivers].sum(1)
        frame = pd.DataFrame({"class": [names[i] for i in tokens.token.tolist()], "drivers": number})
        frame = pd.concat([frame, frame.assign(**{"class": np.where(tokens.place == 0, "(first)", "(later)")})])
        return frame.groupby("class")["drivers"].agg(drivers="mean", tokens="size").sort_values("drivers")[::-1]


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
    with attach(model) as trace, torch.no_grad():
        model(input_ids=tokens, attention_mask=mask, use_cache=False, **one_position(model))
    wanted: dict[int, list[int]] = {}
    for layer, expert in experts:
        wanted.setdefault(layer, []).append(expert)
    sweep = BatchSweep(model, tokens, mask, Settings(way=way, layers=tuple(wanted), keep=True))
    found = sweep.run(wanted).token_kl
    assert found is not None
    columns = {site.layer: at for at, site in enumerate(sweep.layers)}
    rows: list[dict[str, Any]] = []
    every = []
    for layer, expert in experts:
        values = found[0, :, 1:, columns[layer], expert]
        routing = trace.records[0].layers[layer]
        own = (routing.index == expert).flatten(2)
        chosen = own.any(-1).numpy()[:, 1:]
        weight = (routing.weight.float().flatten(2) * own).sum(-1).numpy()[:, 1:]
        sequence, place = np.nonzero(~np.isnan(values))
        at = sequence, place
        every.append(pd.DataFrame({"layer": layer, "expert": expert, "place": place, "selects": chosen[at],
                                   "kl": values[at], "weight": weight[at]}))  # fmt: skip
        for i in np.argsort(-values[at], kind="stable")[:count]:
            s, p = int(sequence[i]), int(place[i]) + 1
            after = tokenizer.decode([ids[s][p + 1]]) if p + 1 < len(ids[s]) else ""
            rows.append({"layer": layer, "expert": expert, "kl": float(values[s, p - 1]),
                         "selects": bool(chosen[s, p - 1]), "before": tokenizer.decode(ids[s][max(1, p - around) : p]),
                         "token": tokenizer.decode([ids[s][p]]), "next": after})  # fmt: skip
    return pd.DataFrame(rows), pd.concat(every, ignore_index=True)


@dataclass(frozen=True, eq=False)
class Space:
    """Where experts lie: their mean outputs, compared by cosine.

    Attributes:
        swept: the sweep; points: `(expert, d)` of the experts that take part; place: `(layer, expert)` of each, as rows
            of the sweep's tables.
    """

    swept: Swept
    points: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, swept: Swept, means: dict[int, torch.Tensor]) -> "Space":
        """From `expert_means` of text alone; super experts, unused ones and those that give exactly nothing do not take
        part."""
        experts = swept.effect.shape[1]
        every = np.stack([means[layer][:experts].float().cpu().numpy() for layer in swept.layers])
        part = ~swept.left_out & ~np.isnan(every).any(-1) & (np.linalg.norm(np.nan_to_num(every), axis=-1) > 0)
        return cls(swept, every[part], np.argwhere(part))

    @property
    def member(self) -> np.ndarray:
        """Whether each expert is a driver."""
        return np.asarray(self.swept.drivers[self.place[:, 0], self.place[:, 1]])

    def tests(self, neighbours: int = 5) -> dict[tuple[str, str], Grouping]:
        """`purity` and `silhouette` of the drivers against permutations over `all` experts and `within` layers.

        Raises:
            ValueError: see `GroupTest`.
        """
        distance = cosine_distance(self.points.astype(np.float64))
        test = GroupTest(neighbours, self.swept.n_perm, self.swept.seed)
        every = test(distance, self.member)
        within = test(distance, self.member, self.place[:, 0])
        return {(name, "all"): one for name, one in every.items()} | {
            (name, "within"): one for name, one in within.items()
        }

    def purity_interval(self, neighbours: int = 5) -> tuple[float, float]:
        """95 % interval of purity, drivers resampled."""
        distance = cosine_distance(self.points.astype(np.float64)) + np.diag(np.full(len(self.points), np.inf))
        near = np.argsort(distance, axis=1, kind="stable")[self.member, :neighbours]
        own = self.member[near].mean(1)
        rng = np.random.default_rng(self.swept.seed)
        draws = own[rng.integers(0, len(own), (self.swept.n_boot, len(own)))].mean(1)
        low, high = np.quantile(draws, [0.025, 0.975])
        return float(low), float(high)
