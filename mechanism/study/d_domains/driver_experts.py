"""Driver experts: the experts of each layer whose ablation changes the output most, in the tables of a causal sweep."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from statsmodels.stats.multitest import multipletests

from ...measure.causal import Concentration, Effects, gini, inclusion, times_equal, top_in_layers
from ...measure.correlation import Correlation
from ...measure.documents import Documents, Domains
from ...measure.evidence import Cell
from ...measure.relevance import super_experts
from ...measure.seeds import Sampled, over_seeds
from ...measure.specialisation import Strongest, certainty, cwas, mutual_information
from .cheap import GRADIENTS, OUTPUTS
from .domain_text import SweepConfig

KINDS = {"routing": "routing", **dict.fromkeys(OUTPUTS, "outputs"), **dict.fromkeys(GRADIENTS, "gradients")}


@dataclass(frozen=True, eq=False)
class Swept:
    """Tables of a sweep.

    Attributes:
        found: see `sweep`; share: of each layer's experts that count as drivers.
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
        return SweepConfig.parse(**json.loads(self.found.attrs["config"]))

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
    def is_driver(self) -> np.ndarray:
        """`(layer, expert)` whether it is among its layer's experts with the largest effect under zero ablation."""
        return self.tops(self.effect)

    def tops(self, values: np.ndarray, share: float | None = None) -> np.ndarray:
        """The experts with the largest values in each layer, as many as drivers or another share."""
        return top_in_layers(values, self.share if share is None else share, self.left_out)

    @cached_property
    def inclusion(self) -> np.ndarray:
        """`(layer, expert)` share of the resamples of documents in which the expert is a driver."""
        return inclusion(self.kl("zero"), self.share, self.left_out, self.n_boot, self.seed)

    def drivers(self, count: int | None = None) -> pd.DataFrame:
        """Driver experts, or so many experts of any layer, the strongest first: `layer`, `expert`, `rate` (share of
        tokens that select it), the effect under every mode by its name, `share` (of its layer's effect, zero ablation)
        `included` (see `inclusion`), `own` (share of the effect at tokens that select it), `loss` (growth per scored
        token, zero ablation)."""
        kept = self.is_driver if count is None else ~self.left_out
        order = np.argsort(-np.where(kept, self.effect, -1).ravel(), kind="stable")
        at = np.unravel_index(order[: int(kept.sum()) if count is None else count], self.effect.shape)
        table = pd.DataFrame({"layer": np.array(self.layers)[at[0]], "expert": at[1], "rate": self.rate[at]})
        for mode in self.found["mode"].values.tolist():
            table[mode] = self.kl(mode).mean()[at]
        zero = self.found.sel(mode="zero")
        total, own = zero["kl"].values.sum(0), zero["own"].values.sum(0)
        table["share"] = table["zero"] / np.where(self.left_out, 0, self.effect).sum(1)[at[0]]
        table["included"] = self.inclusion[at]
        table["own"] = own[at] / np.where(total > 0, total, np.nan)[at]
        table["loss"] = (zero["loss"].values.sum(0) / self.found["targets"].values.sum())[at]
        return table

    @cached_property
    def rate(self) -> np.ndarray:
        """`(layer, expert)` share of tokens that select the expert, domains counting equally (see `by`)."""
        return self.effects(self.found["selections"].values).mean()

    def concentrated(self, mode: str) -> Sampled:
        """Cross-fitted share of their layer's effect that the top experts have under a mode, in multiples of an equal
        share."""
        effects = self.kl(mode)
        kept = replace(effects, values=np.nan_to_num(effects.values))
        return Concentration(self.share, self.n_boot, self.seed)(kept, self.left_out)

    @property
    def busiest(self) -> float:
        """The same of the selections and the experts that take most of them."""
        return times_equal(self.rate, self.tops(self.rate), self.left_out)

    def concentration(self) -> pd.DataFrame:
        """By mode: `estimate` of `concentrated` with `low` and `high`, `busiest` of the selections, how many are `top`
        of so many `experts`; and over all layers at once, where layers that do more count as concentration, `overall`
        and the `gini` coefficient."""
        rows = {}
        part = ~self.left_out
        whole = Concentration(self.share, n_boot=1, seed=self.seed)
        for mode in self.found["mode"].values.tolist():
            own, values = over_seeds([self.concentrated(mode)]), np.nan_to_num(self.kl(mode).values)
            flat = replace(self.kl(mode), values=values.reshape(len(values), 1, -1))
            rows[mode] = {"estimate": own.estimate, "low": own.low, "high": own.high, "busiest": self.busiest,
                          "top": int(self.is_driver.sum()), "experts": int(part.sum()),
                          "overall": whole(flat, self.left_out.reshape(1, -1)).estimate,
                          "gini": gini(self.kl(mode).mean()[part])}  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("mode")

    def domains(self) -> dict[str, np.ndarray]:
        """`(sequence,)` whether a text is of a domain, by domain; `all` of them first. A domain of a single document is
        left out: there are no two halves of it."""
        labels, document = self.labels("domain"), self.labels("document")
        found = {"all": np.ones(len(labels), dtype=bool)}
        for name in np.unique(labels).tolist() if len(set(labels)) > 1 else ():
            own = labels == name
            found |= {name: own} if len(set(document[own])) > 1 else {}
        return found

    def cells(self, shares: Sequence[float] = (0.05, 0.1)) -> list[Cell]:
        """Other analyses of D2: every way of ablation on its own, text of all domains or of one, the share of experts
        that are drivers, and the effect over all tokens or over those that select the expert."""
        found = []
        for text, kept in self.domains().items():
            part = self.found.isel(sequence=np.flatnonzero(kept))
            for tokens, sums in (("all", "kl"), ("that select the expert", "own")):
                for share in shares:
                    own = replace(self, found=part.assign(kl=part[sums]), share=share)
                    for mode in self.found["mode"].values.tolist():
                        choices = {"ablation": mode, "text": text, "drivers": f"{share:.0%}", "tokens": tokens}
                        found.append(Cell(choices, over_seeds([own.concentrated(mode)]).against(own.busiest)))
        return found

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
        """`(layer, expert)` the drivers on text of the common language alone."""
        return self.tops(self.kl("zero", self.in_common).mean())

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
                      "mutual information": mutual_information(domains)}  # fmt: skip
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
