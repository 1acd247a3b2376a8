"""The effects that claims R1 to R3, R9 and R10 are judged on: over training seeds, or in a single model.

Over seeds, an effect is computed in each, with the same documents (or languages) resampled in all of them; see
`SeedMean`. In a single model it is computed in each language, with Student's interval over languages.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from ...corpus.languages import TRAINED, UNKNOWN
from ...measure.evidence import Evidence
from ...measure.paired import SeedMean
from ...measure.profile import contrasts, depth_windows, dip
from ...measure.statistics import resampling_weights, with_observed
from ...measure.units import OVER_SEEDS, Units
from ..base.trials import known_mean
from ..embedded.siblings import SEEDS, histories
from .observe import POOLED, pool, script_of
from .profiles import ALL
from .quality import LANGUAGES, correlation_units
from .sharing import best_or_ends, common_tokens, observations
from .tables import table

WIDE = "udhr"
"""The corpus of the probes in which languages are compared with one another."""
PARTS = ("fall", "fall beyond the pivot's", "last step")
"""What claim R3 says of entropy over depth."""


@dataclass(frozen=True)
class Seeds:
    """Effects over runs that differ in their seed alone.

    Attributes:
        parts: observations by corpus, of each run, on the same segments; n_boot, seed: of resampling.
        trained, unknown: languages that all runs were trained on, the pivot among them, and that none was.
    """

    parts: Mapping[str, Mapping[str, xr.Dataset]]
    n_boot: int = 2000
    seed: int = 0
    trained: Sequence[str] = TRAINED
    unknown: Sequence[str] = UNKNOWN

    @classmethod
    def recorded(cls, names: Sequence[str] = SEEDS, n_boot: int = 2000, seed: int = 0) -> "Seeds":
        """Probes of recorded runs at the last tokens that all of them have."""
        runs = histories(names)
        tokens = common_tokens(runs)
        return cls({name: observations(own, tokens) for name, own in runs.items()}, n_boot, seed)

    def dip(self) -> Evidence:
        """R1: `dip` of the divergence from the pivot, mean over trained languages."""
        return self._evidence(*self._dips)

    def correlation(self) -> Evidence:
        """R2: correlation over languages of quality with divergence; `null` is the upper end among those trained on."""
        own, trained = (
            self._evidence(*self._correlations(only)).mapped(np.tanh)
            for only in ((*self.trained, *self.unknown), self.trained)
        )
        return own.against(trained.high, note=f"among the languages trained on {_told(trained)}")

    def falls(self) -> Evidence:
        """R3: fall of entropy over the depth; `null` is the highest upper end of its `PARTS`."""
        effects, units = self._falls
        parts = {name: self._evidence(own, units) for name, own in zip(PARTS, effects, strict=True)}
        told = "; ".join(f"{name} {_told(own)}" for name, own in parts.items())
        return parts[PARTS[0]].against(max(own.high for own in parts.values()), note=told)

    def apart(self) -> Evidence:
        """R9: divergence of languages never trained on over that of the others, minus 1, mean over layers; `null` is
        the lowest lower end of a layer."""
        layers = [self._between(layer) for layer in range(self._apart[0].shape[3])]
        least = min(range(len(layers)), key=lambda layer: layers[layer].low)
        note = f"least in layer {least}: {_told(layers[least])}"
        return self._between(slice(None)).against(layers[least].low, note=note)

    def gain(self) -> Evidence:
        """R10: centred retrieval in the best middle state minus that in the better one of both ends."""
        return self._evidence(*self._gains)

    def points(self) -> pd.DataFrame:
        """Effects by run: of each claim, R3 by its `PARTS` and R9 in the layer where it is least; and `lowest layer`,
        that of the least divergence."""
        falls, apart = self._falls[0][..., 0], self._apart[0][0, :, 0]
        lowest = [own["divergence"].mean(("segment", "lang")).argmin("layer").item() for own in self.pooled.values()]
        found = {"R1": self._dips[0][:, 0], "lowest layer": lowest}
        found["R2"] = np.tanh(self._correlations((*self.trained, *self.unknown))[0][:, 0])
        found |= {f"R3, {name}": own for name, own in zip(PARTS, falls, strict=True)}
        found |= {"R9": apart.mean(1), "R9, least layer": apart.min(1), "R10": self._gains[0][:, 0]}
        return pd.DataFrame(found, pd.Index(list(self.parts), name="run"))

    @cached_property
    def pooled(self) -> dict[str, xr.Dataset]:
        """All corpora of each run, in the languages trained on, the pivot left out."""
        return {name: taught(pool(list(own.values())), self.trained) for name, own in self.parts.items()}

    def _evidence(self, effects: Float[np.ndarray, "seed draw"], units: int) -> Evidence:
        return SeedMean()(effects[:, 0], (effects[:, 1:].mean(0), units))._replace(units=OVER_SEEDS)

    def _weights(self, units: int) -> np.ndarray:
        return with_observed(resampling_weights(units, self.n_boot, self.seed))

    def _documents(self, each: Iterable[xr.DataArray]) -> tuple[np.ndarray, int]:
        """`language_means` of a quantity of each run, documents resampled, and the number of documents."""
        values = list(each)
        units = int(values[0]["cluster"].max()) + 1
        weights = self._weights(units)
        return np.stack([language_means(own, weights) for own in values]), units

    @cached_property
    def _dips(self) -> tuple[np.ndarray, int]:
        means, units = self._documents(own["divergence"] for own in self.pooled.values())
        return known_mean(dip(means), 2), units

    @cached_property
    def _falls(self) -> tuple[np.ndarray, int]:
        whole = [pool(list(own.values()))["entropy"] for own in self.parts.values()]
        means, units = self._documents(own["entropy"] for own in self.pooled.values())
        pivot, _ = self._documents(own.sel(lang=["en"]) for own in whole)
        experts = next(iter(next(iter(self.parts.values())).values())).attrs["experts"]
        return known_mean(entropy_parts(means, pivot, experts), 3), units

    @cached_property
    def _gains(self) -> tuple[np.ndarray, int]:
        means, units = self._documents(map(best_or_ends, self.pooled.values()))
        return known_mean(means[..., 0] - means[..., 1:].max(-1), 2), units

    def _between(self, layer: int | slice) -> Evidence:
        effects, sizes = self._apart
        picked = effects[..., [layer] if isinstance(layer, int) else layer].mean(3)
        beneath = [(own[:, 1:].mean(0), size) for own, size in zip(picked, sizes, strict=True)]
        return SeedMean()(picked[0, :, 0], *beneath)._replace(units=OVER_SEEDS)

    @cached_property
    def _apart(self) -> tuple[np.ndarray, list[int]]:
        """`(side, seed, draw, layer)`, languages of one side resampled, and how many there are."""
        found = []
        for parts in self.parts.values():
            whole = parts[WIDE]["divergence"].dropna("lang", how="all")
            sides = strangers(map(str, whole["lang"].values), self.trained, self.unknown)
            both = whole.sel(lang=[*sides[0], *sides[1]]).dropna("segment").mean("segment")
            values = [both.sel(lang=side).values for side in sides]
            own, other = (self._weights(len(side)) @ each / len(side) for side, each in zip(sides, values, strict=True))
            found.append(np.stack([own / other[:1], own[:1] / other]) - 1)
        return np.stack(found, 1), [len(side) for side in sides]

    def _correlations(self, codes: Sequence[str]) -> tuple[np.ndarray, int]:
        """`(seed, draw)`, Fisher's z, languages resampled."""
        found = []
        for parts in self.parts.values():
            sides = quality_and_divergence(parts[WIDE], codes)
            if (np.ptp(sides.to_numpy(), axis=0) < 1e-6).any():
                raise ValueError("quality or divergence is the same in all languages: no correlation is defined")
            drawn = np.random.default_rng(self.seed).integers(0, len(sides), (self.n_boot, len(sides)))
            rows = sides.to_numpy()[np.concatenate([[np.arange(len(sides))], drawn])]
            x, y = np.moveaxis(rows - rows.mean(1, keepdims=True), 2, 0)
            scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
            found.append(np.arctanh((x * y).sum(1) / np.maximum(scale, 1e-12)))
        return np.stack(found), len(sides)


@dataclass(frozen=True)
class OneModel:
    """The same effects in a single model, from the tables of its study; languages are the units.

    Attributes:
        found: of `routing.study`.
    """

    found: xr.Dataset

    def dip(self) -> Evidence:
        """See `Seeds.dip`."""
        return self._over_languages(self.dips("divergence"))

    def dips(self, quantity: str) -> pd.Series:
        """`dip` of a quantity in each trained language."""
        profile = table(self.found, "profile").loc[POOLED, quantity]["value"].unstack("layer")
        return pd.Series(dip(profile.to_numpy(np.float64)), profile.index).reindex(self.taught).dropna()

    def correlation(self) -> Evidence:
        """See `Seeds.correlation`; the interval resamples languages."""
        links = table(self.found, "association").xs(("nothing", "pearson"), level=("given", "method"))
        wide = self.found.attrs["wide"]
        known = f"{wide}, trained languages"
        own, trained = links.loc[wide], links.loc[known if known in links.index else wide]
        for row in (own, trained):
            if np.isnan(row["value"]):
                raise ValueError(f"{row['n']:.0f} languages are too few, or what is compared does not vary")
        found = Evidence.of_row({**own, "null": trained["high"]}, "value")
        return found._replace(units=correlation_units(table(self.found, "language").xs(wide, level="corpus")))

    def falls(self) -> Evidence:
        """See `Seeds.falls`."""
        rows = table(self.found, "falls")
        if rows.empty:
            raise ValueError("no language is left whose entropy could fall")
        each = rows["value"].unstack("contrast")[["slope", "slope_difference", "last_step"]]
        parts = [self._over_languages(each[name] / np.log(self.found.attrs["experts"])) for name in each]
        told = "; ".join(f"{name} {_told(own)}" for name, own in zip(PARTS, parts, strict=True))
        return parts[0].against(max(own.high for own in parts), note=told)

    def apart(self) -> Evidence:
        """See `Seeds.apart`; the interval resamples documents."""
        rows = table(self.found, "held_out")
        if rows.empty:
            raise ValueError(
                "no text in a language that the model surely does not know, beside one of the same script that it does"
            )
        whole = rows.loc[ALL]
        own = Evidence.of_row(whole, "value")
        if "apart" in self.found:
            of = f"documents of {self.found.attrs['apart']}"
            more, base = self.found["apart"].dropna("document").transpose("side", "document")
            own = own._replace(units=Units.ratio(of, more["document"].values, more.values, base.values))
        return own.against(float(rows.drop(ALL)["low"].min()))

    def gain(self) -> Evidence:
        """See `Seeds.gain`."""
        rows = table(self.found, "shared")
        if rows.empty:
            raise ValueError("no language is left whose translations could be retrieved")
        return self._over_languages(rows["gain"])

    @property
    def taught(self) -> list[str]:
        """Languages that the model was trained on, as far as that is known."""
        rows = table(self.found, "falls")
        return [] if rows.empty else list(rows.index.unique("lang"))

    def _over_languages(self, values: pd.Series) -> Evidence:
        own = values.dropna().astype(np.float64)
        return SeedMean()(own.to_numpy())._replace(units=Units.mean(LANGUAGES, own.index, own))


def language_means(
    values: xr.DataArray, weights: Float[np.ndarray, "draw cluster"]
) -> Float[np.ndarray, "draw lang axis"]:
    """Means over the segments of each language, documents weighted; NaN where a draw has none of the language.

    Args:
        values: `(lang, segment, axis)` with the `cluster` of each segment, NaN for a segment that a language lacks.
    """
    each = values.values.astype(np.float64)
    there = np.asarray(~np.isnan(each).any(2))
    member = np.eye(weights.shape[1])[values["cluster"].values]
    sums = np.einsum("lsa,sc->cla", np.where(there[..., None], each, 0), member)
    counts = (weights @ np.einsum("ls,sc->cl", there, member))[..., None]
    return np.where(counts > 0, np.tensordot(weights, sums, 1) / np.maximum(counts, 1), np.nan)


def taught(found: xr.Dataset, trained: Sequence[str] = TRAINED) -> xr.Dataset:
    """An observation in the languages that the report's models were trained on, the pivot left out."""
    return found.sel(lang=[code for code in found["lang"].values if code in trained and code != found.attrs["pivot"]])


def entropy_parts(
    own: Float[np.ndarray, "*batch layer"], pivot: Float[np.ndarray, "*other layer"], experts: int
) -> Float[np.ndarray, "part *batch"]:
    """`PARTS` of entropies, as shares of the largest one there is: the rise of a line over the whole depth, that minus
    the pivot's, and the step to the last layer."""
    slope, step = contrasts(own.shape[-1]).loc[["slope", "last_step"]].to_numpy()
    return np.stack([own @ slope, own @ slope - pivot @ slope, own @ step]) / np.log(experts)


def strangers(
    codes: Iterable[str], trained: Sequence[str] = TRAINED, unknown: Sequence[str] = UNKNOWN
) -> tuple[list[str], list[str]]:
    """Languages that the report's models were never trained on, and those they were that share a script with one, the
    pivot left out."""
    held = list(codes)
    strange = [code for code in held if code in unknown]
    scripts = {script_of(code) for code in strange}
    return strange, [c for c in held if c in trained and c != "en" and script_of(c) in scripts]


def quality_and_divergence(found: xr.Dataset, codes: Sequence[str]) -> pd.DataFrame:
    """Minus the logarithm of the loss over the pivot's, and divergence in the middle third of the layers, of each of
    the languages but the pivot, on the segments that it and the pivot have; see `quality`."""
    pivot, middle = found["nll"].sel(lang=found.attrs["pivot"]), depth_windows(found.sizes["layer"])["middle"]
    rows = {}
    for code in (code for code in codes if code in found["lang"].values and code != found.attrs["pivot"]):
        own = found.sel(lang=code)
        common = (own["nll"].notnull() & pivot.notnull()).values
        if common.any():
            loss = own["nll"].values[common].sum() / pivot.values[common].sum()
            rows[code] = float(-np.log(loss)), float(own["divergence"].values[common][:, middle].mean())
    return pd.DataFrame.from_dict(rows, orient="index", columns=["quality", "divergence"])


def _told(own: Evidence) -> str:
    return f"{own.estimate:.2f} [{own.low:.2f}, {own.high:.2f}]"
