"""Driver experts: the experts whose ablation changes the output most. The numbers of claims D2 and D7."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from statsmodels.stats.multitest import multipletests
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import load
from ...measure.causal import Concentration, Effects, gini, top_count, top_experts, top_share
from ...measure.correlation import Correlation
from ...measure.documents import Documents, Domains
from ...measure.relevance import super_experts
from ...measure.specialisation import MutualInformation, Strongest, certainty, cwas
from ...models.passes import encode, padding_token
from ..base.records import model_hash, recorded, stored, texts_hash
from .cheap import GRADIENTS, OUTPUTS, cheap_statistics, massive_layers
from .effects import FIRST
from .sweep import OPTIONS, SweepOptions, sweep
from .sweep_text import SWEEP, SweepConfig, passages

KINDS = {"routing": "routing", **dict.fromkeys(OUTPUTS, "outputs"), **dict.fromkeys(GRADIENTS, "gradients")}


def analyse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SweepConfig,
    options: SweepOptions = OPTIONS,
    samples: int = 1,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> xr.Dataset:
    """A sweep, and on the same text the cheap statistics of every expert, `(layer, expert)` means per token (`peak`:
    maximum) under `cheap_NAME`; by sequence `control`, its sum of `relative`; and `forming`: layers that form massive
    activations.

    Args:
        samples: next tokens drawn for `cheap_fisher`; 0 leaves out what is made of gradients.
    """
    found = sweep(model, tokenizer, config, options, say, progress)
    ids = encode(tokenizer, [p.text for p in passages(config)], config.max_tokens)
    padding = padding_token(tokenizer)
    cheap = cheap_statistics(model, ids, padding, samples=samples, seed=config.seed)
    own = Swept(found)
    for name, values in cheap.items():
        mean = values.max(0) if name == "peak" else own.effects(values).mean()
        found[f"cheap_{name}"] = (("layer", "expert"), mean)
    found["control"] = (("sequence", "layer", "expert"), cheap["relative"])
    return found.assign(forming=("layer", massive_layers(model, ids[:8], padding)))


def record_key(spec: str, config: SweepConfig, dtype: str) -> tuple[dict[str, Any], str]:
    """Configuration and data that a record of `analyse` is found by."""
    corpora = [load(name, config.languages or ()) for name in config.data]
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    about = {"study": "sweep", "model": model_hash(spec), "dtype": dtype, "first_ablated": FIRST, "means": "domains"}
    return {**about, **settings}, texts_hash(corpora)


def recorded_sweep(spec: str, config: SweepConfig = SWEEP, dtype: str = "float32") -> xr.Dataset | None:
    """The committed full sweep of a model, None if there is none."""
    return recorded(*record_key(spec, config, dtype))


def stored_sweep(
    spec: str, config: SweepConfig, dtype: str, compute: Callable[[], xr.Dataset], command: str
) -> xr.Dataset:
    """The full sweep of a model: read from its record, or computed and recorded."""
    return stored(*record_key(spec, config, dtype), compute, command)


@dataclass(frozen=True, eq=False)
class Swept:
    """Tables of a sweep.

    Attributes:
        found: see `sweep` and `analyse`; share: of the experts that count as drivers.
        n_boot, n_perm: resamples and permutations; seed: of both.
        by: what counts equally in means, see `Effects`.
    """

    found: xr.Dataset
    share: float = 0.05
    n_boot: int = 500
    n_perm: int = 2000
    seed: int = 0
    by: Literal["domain", "cell"] = "domain"

    @property
    def config(self) -> SweepConfig:
        """What was swept."""
        stated: dict[str, Any] = json.loads(self.found.attrs["config"])
        stated |= {k: tuple(v) for k, v in stated.items() if isinstance(v, list)}
        return SweepConfig(**stated)

    @property
    def layers(self) -> list[int]:
        """The model's index of each layer."""
        return self.found["layer"].values.tolist()

    def labels(self, name: str) -> np.ndarray:
        """`(sequence,)` `domain`, `lang` or `document`."""
        return self.found[name].values.astype(str)

    def effects(self, values: np.ndarray, kept: np.ndarray | None = None) -> Effects:
        """Sums over sequences with their labels; `kept`: numbers of the sequences to keep."""
        at = np.arange(len(values)) if kept is None else kept
        domain, lang = self.labels("domain")[at], self.labels("lang")[at]
        cell = np.char.add(np.char.add(domain, " "), lang)
        own = values[at].astype(np.float64), self.found["tokens"].values[at]
        return Effects(*own, cell, domain, self.labels("document")[at], self.by)

    def kl(self, mode: str, kept: np.ndarray | None = None) -> Effects:
        """Divergence by sequence, of a mode of ablation."""
        return self.effects(self.found["kl"].sel(mode=mode).values, kept)

    @cached_property
    def effect(self) -> np.ndarray:
        """`(layer, expert)` mean divergence per token under zero ablation, nats; NaN where it failed."""
        return self.kl("zero").mean()

    @cached_property
    def unused(self) -> np.ndarray:
        """`(layer, expert)` experts that no text token selects."""
        return np.asarray(self.found["selections"].values.sum(0) == 0)

    @cached_property
    def failed(self) -> np.ndarray:
        """`(layer, expert)` experts some ablation of which is not a number."""
        return np.isnan(self.found["kl"].values).any((0, 1))

    @cached_property
    def super(self) -> np.ndarray:
        """`(layer, expert)` super experts; none where no layer forms massive activations."""
        return super_experts(self.found["cheap_peak"].values.astype(np.float64), self.found["forming"].values > 0)

    @cached_property
    def left_out(self) -> np.ndarray:
        """`(layer, expert)` super experts and experts whose ablation failed: reported apart."""
        return self.super | self.failed

    @cached_property
    def drivers(self) -> np.ndarray:
        """`(layer, expert)` the experts with the largest effect under zero ablation."""
        return top_experts(self.effect, top_count(int((~self.left_out).sum()), self.share), self.left_out)

    def ranking(self, count: int | None = None) -> pd.DataFrame:
        """Drivers, the strongest first: `layer`, `expert`, `rate` (share of tokens that select it), `effect` of every
        mode, `own` (share of the effect at tokens that select it), `loss` (growth per scored token, zero ablation)."""
        size = int(self.drivers.sum()) if count is None else count
        order = np.argsort(-np.where(self.left_out, -1, self.effect).ravel(), kind="stable")[:size]
        rows, columns = np.unravel_index(order, self.effect.shape)
        table = pd.DataFrame({"layer": np.array(self.layers)[rows], "expert": columns})
        table["rate"] = self.rate[rows, columns]
        for mode in self.found["mode"].values.tolist():
            table[mode] = self.kl(mode).mean()[rows, columns]
        zero = self.found.sel(mode="zero")
        total, own = zero["kl"].values.sum(0), zero["own"].values.sum(0)
        table["own"] = own[rows, columns] / np.where(total > 0, total, np.nan)[rows, columns]
        table["loss"] = (zero["loss"].values.sum(0) / self.found["targets"].values.sum())[rows, columns]
        return table

    @cached_property
    def rate(self) -> np.ndarray:
        """`(layer, expert)` share of tokens that select the expert, domains counting equally (see `by`)."""
        return self.effects(self.found["selections"].values).mean()

    def concentration(self) -> pd.DataFrame:
        """By mode: `gini`, cross-fitted `estimate` of the share of the top experts with `low` and `high`, `experts`
        that take part and how many are `top`, and `busiest`: share of the selections that as many experts take."""
        rows = {}
        measure = Concentration(self.share, n_boot=self.n_boot, seed=self.seed)
        part = ~self.left_out
        busy = np.where(part, self.rate, 0)
        for mode in self.found["mode"].values.tolist():
            effects = self.kl(mode)
            kept = replace(effects, values=np.nan_to_num(effects.values))
            own = measure(kept, self.left_out)
            count = top_count(own.n, self.share)
            busiest = top_share(busy, top_experts(busy, count, self.left_out))
            mean = kept.mean()[part]
            rows[mode] = {"gini": gini(mean), "estimate": own.estimate, "low": own.low, "high": own.high,
                          "experts": own.n, "top": count, "busiest": busiest}  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("mode")

    @cached_property
    def common(self) -> str:
        """The language that most domains have, English first."""
        pairs = pd.DataFrame({"domain": self.labels("domain"), "lang": self.labels("lang")}).drop_duplicates()
        sizes = pairs.groupby("lang")["domain"].size()
        return "en" if sizes.get("en", 0) == sizes.max() else str(sizes.idxmax())

    @cached_property
    def in_common(self) -> np.ndarray:
        """Numbers of the sequences in the common language."""
        return np.flatnonzero(self.labels("lang") == self.common)

    @cached_property
    def documents(self) -> Documents | None:
        """Sequences of the common language by domain; None if there are not two domains, and no domain expert."""
        at = self.in_common
        if len(set(self.labels("domain")[at])) < 2:
            return None
        chosen, tokens = self.found["selections"].values[at], self.found["tokens"].values[at]
        return Documents(self.labels("domain")[at], tokens, np.minimum(chosen, tokens[:, None, None]))

    @cached_property
    def common_drivers(self) -> np.ndarray:
        """`(layer, expert)` as many experts as `drivers`, those with the largest effect on text of the common
        language."""
        return top_experts(self.kl("zero", self.in_common).mean(), int(self.drivers.sum()), self.left_out)

    @cached_property
    def per_use(self) -> np.ndarray:
        """`(layer, expert)` effect under zero ablation per token that selects the expert, nats; NaN for unused ones."""
        return np.asarray(self.effect / np.where(self.rate > 0, self.rate, np.nan))

    def metrics(self) -> dict[str, np.ndarray]:
        """`(layer, expert)` observational metrics by name; those of specialisation only where there are domains."""
        cheap = {
            str(name).removeprefix("cheap_"): values.values.astype(np.float64)
            for name, values in self.found.data_vars.items()
            if str(name).startswith("cheap_")
        }
        used = np.maximum(cheap["selections"], 1e-12)
        found = {
            "activation rate": cheap["selections"],
            "gate weight": cheap["weight"],
            "router probability": cheap["probability"],
            "gate weight where selected": cheap["weight"] / used,
            "router entropy where selected": cheap["entropy"] / used,
        }
        if self.documents is not None:
            domains = Domains(self.documents)
            found |= {"certainty": np.nan_to_num(certainty(domains)), "CWAS": Strongest(cwas)(domains),
                      "mutual information": MutualInformation()(domains)}  # fmt: skip
        found |= {name: cheap[name] for name in (*OUTPUTS, *GRADIENTS) if name in cheap}
        return found

    def predictions(self) -> pd.DataFrame:
        """Rank correlation over experts of every metric with the effect of zero ablation, layers held constant: `kind`,
        `estimate`, `low`, `high`, `p` by permutation within layers, and `holm`, corrected over the metrics of a kind.
        Beside it, with the effect per token that selects the expert (`per_use`), which an expert does not owe to being
        used much: `per use`, and its interval. Metrics without any variation are left out."""
        part = ~self.left_out & ~self.unused
        layer = np.nonzero(part)[0]
        dummies = (layer[:, None] == np.unique(layer)[1:]).astype(np.float64)
        rows: dict[str, dict[str, Any]] = {}
        for name, values in self.metrics().items():
            correlation = Correlation("spearman", n_boot=self.n_boot, n_perm=self.n_perm, seed=self.seed)
            try:
                one, use = (correlation(values[part], x[part], dummies, layer) for x in (self.effect, self.per_use))
            except ValueError:
                continue
            rows[name] = {"kind": KINDS.get(name, "routing"), **one.row(), "p": one.p, "per use": use.estimate,
                          "per use, low": use.low,
                          "per use, high": use.high}  # fmt: skip
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("metric")
        holm = table.groupby("kind")["p"].transform(lambda p: multipletests(p, method="holm")[1])
        table.insert(list(table).index("p") + 1, "holm", holm)
        return table
