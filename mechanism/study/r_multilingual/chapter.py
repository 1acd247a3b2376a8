"""Every table of chapter R over its observations, and the evidence on its claims."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr

from ...measure.correlation import Correlation
from ...measure.evidence import Evidence
from ...measure.power import Detectable
from ...measure.statistics import ClusterBootstrap
from .config import ChapterConfig
from .groups import between, grouping
from .language_experts import TAU, ExpertOverlap
from .observe import pool, script_of
from .profiles import LanguageProfiles, entropy_falls, share
from .quality import EXPLAINED, associations, explained, log_training_tokens, quality, training_bytes
from .sharing import shared_states

QUANTITIES = ("divergence", "entropy", "consistency")
STATES = ("hits", "hits_centred", "distance")
COMPARED = ("divergence", *STATES)  # of a language with the pivot; of the pivot with itself they say nothing
POOLED = "pooled"
EVIDENCE = ("estimate", "low", "high", "n", "null", "p")
DETECTABLE = {
    "R1": "dip of the middle layers below the ends, in one language",
    "R2": "correlation over languages",
    "R3": "rise of entropy over the depth beyond that of the pivot, in one language, nats",
    "R4": "rank correlation over languages",
    "R9": "difference of divergence, in one layer",
    "R10": "difference of retrieval, in one language",
    "R11": "share of what the other predictors leave",
    "R12": "difference of divergence",
}


@dataclass(frozen=True)
class Chapter:
    """Tables over an observation.

    Attributes:
        parts: observations, one a corpus; tasks: frequencies of experts on task texts; config: see there.
    """

    parts: Sequence[xr.Dataset]
    tasks: Mapping[str, np.ndarray]
    config: ChapterConfig

    @cached_property
    def pooled(self) -> xr.Dataset:
        """All segments."""
        return pool(self.parts)

    @cached_property
    def wide(self) -> xr.Dataset:
        """The corpus with most languages, the first of several."""
        return max(self.parts, key=lambda part: part.sizes["lang"])

    @cached_property
    def each(self) -> dict[str, xr.Dataset]:
        """Observations by corpus, and pooled."""
        return {**{part.attrs["corpus"]: part for part in self.parts}, POOLED: self.pooled}

    @cached_property
    def profiles(self) -> LanguageProfiles:
        return LanguageProfiles(ClusterBootstrap(n_boot=self.config.n_boot, seed=self.config.seed))

    @cached_property
    def training(self) -> dict[str, int]:
        return training_bytes(self.config.trained)

    @cached_property
    def languages(self) -> dict[str, pd.DataFrame]:
        """`quality` by corpus."""
        return {part.attrs["corpus"]: quality(part, self.training) for part in self.parts}

    @property
    def compared(self) -> pd.DataFrame:
        """Languages as claims compare them: `quality` in the widest corpus."""
        return self.languages[self.wide.attrs["corpus"]]

    def taught(self, found: xr.Dataset) -> list[str]:
        """Observed languages, the pivot left out, that the model was trained on; those not known to be unknown, if its
        training is not known."""
        codes = [str(code) for code in found["lang"].values if code != found.attrs["pivot"]]
        return [c for c in codes if (c in self.config.trained if self.config.trained else c not in self.config.unknown)]

    def strangers(self) -> tuple[list[str], list[str]]:
        """Observed languages that the model does not know, and those it does that are written in one of their
        scripts."""
        unknown = [code for code in self.config.unknown if code in self.wide["lang"].values]
        scripts = {script_of(code) for code in unknown}
        return unknown, [code for code in self.taught(self.wide) if script_of(code) in scripts]

    def consistency(self) -> pd.DataFrame:
        """Consistency by language in the widest corpus, with its interval and `log_train`, where it is known."""
        trained = log_training_tokens(self.wide, self.training)
        return self.profiles.overall(self.wide, "consistency").join(trained)

    @cached_property
    def overlap(self) -> pd.DataFrame:
        return ExpertOverlap(n_boot=min(self.config.n_boot, 500), seed=self.config.seed)(self.wide, self.tasks)

    @cached_property
    def states(self) -> pd.DataFrame:
        return shared_states(self.pooled, self.taught(self.pooled), self.profiles.bootstrap)

    @cached_property
    def falls(self) -> pd.DataFrame:
        return self.profiles.falls(self.pooled, self.taught(self.pooled))

    @cached_property
    def held_out(self) -> pd.DataFrame:
        return self.profiles.beyond(self.wide, *self.strangers())

    def evidence(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """What a verdict needs, by claim, and why it cannot be had for the others."""
        found, missing = {}, {}
        makers: dict[str, Callable[[], Evidence]] = {
            "R1": lambda: share(self.profiles.u_shaped(self.pooled)),
            "R2": self._predicts,
            "R3": lambda: share(entropy_falls(self.falls)),
            "R4": self._resources,
            "R5": self._disjoint,
            "R9": self._strange,
            "R10": lambda: share(self.states["shared"]),
            "R11": self._adds,
        }
        for claim, make in makers.items():
            try:
                found[claim] = make()._asdict()
            except ValueError as error:
                missing[claim] = str(error)
        return pd.DataFrame.from_dict(found, orient="index", columns=list(EVIDENCE), dtype=np.float64), missing

    def _predicts(self) -> Evidence:
        table = self.compared
        sides = table["divergence"].to_numpy(), table["quality"].to_numpy()
        return Correlation("pearson", seed=self.config.seed)(*sides)

    def _resources(self) -> Evidence:
        if not self.training:
            raise ValueError("how much text of each language the model was trained on is not known")
        table = self.consistency()[["value", "log_train"]].dropna()
        sides = table["value"].to_numpy(), table["log_train"].to_numpy()
        return Correlation("spearman", seed=self.config.seed)(*sides)

    def _strange(self) -> Evidence:
        if not len(self.held_out):
            raise ValueError(
                "no text in a language that the model surely does not know, beside one of the same script that it does"
            )
        return share(self.held_out["low"] > 0)

    def _disjoint(self) -> Evidence:
        row = self.overlap.loc[TAU]
        size = self.wide.sizes["layer"] * self.wide.sizes["expert"]
        return Evidence(row["shared"], row["low"], row["high"], size, p=row["p_fewer_permuted"])

    def _adds(self) -> Evidence:
        found = explained(self.compared, seed=self.config.seed)
        return Evidence(found["value"], found["low"], found["high"], int(found["n"]), p=found["p"])

    @cached_property
    def explained(self) -> dict[str, pd.Series]:
        """What divergence adds to the distance of hidden states, and the reverse; nothing where it is not defined."""
        found = {}
        for added, other in (("divergence", "distance"), ("distance", "divergence")):
            base = (other, "other_script", "log_train")
            try:
                found[added] = explained(self.compared, added, base, seed=self.config.seed)
            except ValueError:
                found[added] = pd.Series(np.nan, list(EXPLAINED))
        return found

    def power(self) -> dict[str, float]:
        """The smallest effect that the data would have shown with a probability of 80 %, by claim; see `DETECTABLE`.
        Where a claim is about each language (or layer), the median over them."""
        bounds = {
            "R1": self.profiles.shapes(self.pooled, "divergence").xs("ends-middle", level="contrast"),
            "R3": self.falls[self.falls.index.get_level_values("contrast") == "slope_difference"],
            "R9": self.held_out,
            "R10": self.states.rename(columns={"best_low": "low", "best_high": "high"}),
        }
        test = Detectable()
        found = {
            c: float(np.median([test.difference(*b) for b in t[["low", "high"]].to_numpy(np.float64)]))
            for c, t in bounds.items()
            if len(t)
        }
        sizes = {"R2": len(self.compared), "R4": int(self.consistency()["log_train"].notna().sum())}
        found |= {claim: test.correlation(n) for claim, n in sizes.items() if n > 3}
        return found | {"R11": float(self.explained["divergence"]["detectable"])}

    def dataset(self) -> xr.Dataset:
        """Everything that the chapter shows, ready to be recorded. `bound` is value, low, high and n of an estimate."""
        evidence, missing = self.evidence()
        pivot = self.pooled.attrs["pivot"]
        left_out = {part.attrs["corpus"]: part.attrs["left_out"] for part in self.parts if part.attrs["left_out"]}
        found = {
            "segments": _segments(self.each),
            "profile": self._cube(self.profiles.by_layer, QUANTITIES, "layer"),
            "states": self._cube(self.profiles.by_layer, STATES, "state"),
            "shape": self._cube(self.profiles.shapes, QUANTITIES[:2], "contrast"),
            "between": between(self.wide),
            "groups": grouping(between(self.wide), seed=self.config.seed).to_xarray().to_array("statistic"),
            "language": _stacked(self.languages),
            "association": self._associations(),
            "explained": pd.DataFrame(self.explained).T.rename_axis("added").to_xarray().to_array("explained_of"),
            "power": xr.DataArray(pd.Series(self.power(), dtype=np.float64).rename_axis("claim")),
            "consistency": self.consistency().to_xarray().to_array("consistency_of"),
            "evidence": evidence.rename_axis("claim").to_xarray().to_array("field"),
        }
        if len(self.falls):
            found["falls"] = _array(self.falls.reset_index(), ["lang", "contrast"])
        if len(self.held_out):
            found["held_out"] = _array(self.held_out, ["layer"])
        if len(self.states):
            found["shared"] = self.states.astype(np.float64).to_xarray().to_array("shared_of")
        if self.tasks:
            found["overlap"] = self.overlap.to_xarray().to_array("overlap_of")
        about = {"pivot": pivot, "wide": self.wide.attrs["corpus"], "left_out": json.dumps(left_out)}
        return xr.merge([v.rename(k) for k, v in found.items()], join="outer").assign_attrs(
            about | {"undecided": json.dumps(missing), "tasks": ", ".join(self.tasks)}
        )

    def _cube(self, table: Callable[[xr.Dataset, str], pd.DataFrame], names: Iterable[str], axis: str) -> xr.DataArray:
        frames = {(c, name): table(part, name).reset_index() for name in names for c, part in self.each.items()}
        joined = pd.concat(frames, names=["corpus", "quantity"]).reset_index(level=["corpus", "quantity"])
        itself = (joined["lang"] == self.pooled.attrs["pivot"]) & joined["quantity"].isin(COMPARED)
        joined = joined[~itself]
        return _array(joined, ["corpus", "quantity", "lang", axis])

    def _associations(self) -> xr.DataArray:
        tables = {corpus: associations(table, seed=self.config.seed) for corpus, table in self.languages.items()}
        if self.config.trained:
            known = self.compared.loc[lambda t: t.index.isin(self.config.trained)]
            tables[f"{self.wide.attrs['corpus']}, trained languages"] = associations(known, seed=self.config.seed)
        return pd.concat(tables, names=["sample"]).to_xarray().to_array("association_of")


def evidence(found: xr.Dataset) -> dict[str, Evidence | str]:
    """What each claim is judged on, from `Chapter.dataset`, or the reason why it cannot be."""
    table = found["evidence"].dropna("claim", how="all").transpose("claim", "field").to_pandas()
    missing: dict[str, Evidence | str] = json.loads(found.attrs["undecided"])
    return missing | {claim: Evidence(*row[list(EVIDENCE)]) for claim, row in table.iterrows()}


def _array(table: pd.DataFrame, dims: list[str]) -> xr.DataArray:
    """A tidy table of estimates as an array over `dims` and `bound`."""
    return table.set_index(dims)[["value", "low", "high", "n"]].astype(np.float64).to_xarray().to_array("bound")


def _stacked(tables: Mapping[str, pd.DataFrame]) -> xr.DataArray:
    """Numbers of tables by language, over `corpus`, `lang` and `column`."""
    joined = pd.concat(tables, names=["corpus"]).select_dtypes("number").astype(np.float64)
    return joined.to_xarray().to_array("language_of")


def _segments(each: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """Number of segments by corpus and language."""
    counts = {corpus: part["nll"].notnull().sum("segment").to_pandas() for corpus, part in each.items()}
    table = pd.DataFrame(counts).rename_axis(index="lang", columns="corpus").astype(np.float64)
    return xr.DataArray(table)
