"""What goes with routing over languages: quality, training text, and the confounders of both (claims R2, R4, R11)."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd
import xarray as xr

from ...corpus.library import committed, training_budgets, training_rows
from ...measure.correlation import Correlation, Method, residual, with_intercept
from ...measure.evidence import Evidence
from ...measure.power import Detectable
from ...measure.profile import depth_windows
from ...measure.regression import NestedRegression
from ...measure.units import Units
from .observe import script_of

DRAWS = 1000
EXPLAINED = ("value", "low", "high", "p", "n", "base", "detectable")
LANGUAGES = "languages"
UNDEFINED = "without one of its languages it is not defined"
CONFOUNDERS = ("other_script", "overlap", "log_train", "length_ratio")
GIVEN: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "script": ("other_script",),
    "overlap": ("overlap",),
    "script, overlap": ("other_script", "overlap"),
    "training text": ("log_train",),
    "length": ("length_ratio",),
    "all four": CONFOUNDERS,
}
RESOURCES = {name: GIVEN[name] for name in ("nothing", "script", "length")} | {
    "script, length": ("other_script", "length_ratio")
}


def training_bytes(codes: Iterable[str]) -> dict[str, int]:
    """UTF-8 bytes of the training text that the report's models have in each language."""
    sizes = {}
    for code in codes:
        sizes[code] = 0
        for name, budget in training_budgets(code).items():
            corpus = committed(name)
            texts = corpus.texts(code, training_rows(corpus, code, budget))
            sizes[code] += sum(len(text.encode()) for text in texts)
    return sizes


def log_training_tokens(found: xr.Dataset, training: Mapping[str, int]) -> pd.Series:
    """Logarithm of the tokens of training text in each observed language: its bytes, at the tokens per byte of the
    language's observed segments. Languages without training text are left out."""
    rows = {}
    for code in map(str, found["lang"].values):
        own = found.sel(lang=code)
        if training.get(code):
            rows[code] = np.log(training[code] * float(own["tokens"].sum() / own["bytes"].sum()))
    return pd.Series(rows, dtype=np.float64, name="log_train").rename_axis("lang")


def quality(found: xr.Dataset, training: Mapping[str, int]) -> pd.DataFrame:
    """One row per language but the pivot: what claim R2 correlates, and its confounders.

    Columns, over the segments that the language and the pivot both have: `divergence` in the middle third of the
    layers, and `distance` of hidden states behind them; `relative_loss`, total loss over the pivot's; `quality`, minus
    its logarithm (higher is better); `bits_per_byte`; `length_ratio`, tokens per token of the pivot; `overlap` of
    tokens; `other_script` (0 or 1); `log_train`, NaN if unknown; `n` segments.
    """
    pivot = found.sel(lang=found.attrs["pivot"])
    middle = depth_windows(found.sizes["layer"])["middle"]
    states = found["layer"].values[middle] + 1
    trained = log_training_tokens(found, training)
    rows = {}
    for code in map(str, found["lang"].values):
        own = found.sel(lang=code)
        common = (own["nll"].notnull() & pivot["nll"].notnull()).values
        if code == found.attrs["pivot"] or not common.any():
            continue
        loss, other = (float(side["nll"].values[common].sum()) for side in (own, pivot))
        rows[code] = {
            "divergence": float(own["divergence"].values[common][:, middle].mean()),
            "distance": float(own["distance"].sel(state=states).values[common].mean()),
            "relative_loss": loss / other,
            "quality": float(-np.log(loss / other)),
            "bits_per_byte": float(loss / np.log(2) / own["bytes"].values[common].sum()),
            "length_ratio": float(own["tokens"].values[common].sum() / pivot["tokens"].values[common].sum()),
            "overlap": float(own["overlap"]),
            "other_script": float(script_of(code) != script_of(found.attrs["pivot"])),
            "log_train": trained.get(code, np.nan),
            "n": int(common.sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("lang")


def associations(
    table: pd.DataFrame,
    x: str = "divergence",
    y: str = "quality",
    given: Mapping[str, Sequence[str]] = GIVEN,
    seed: int = 0,
) -> pd.DataFrame:
    """Pearson and Spearman correlation over languages, plain and given confounders.

    Returns:
        Index `(given, method)`; columns `value`, `low`, `high`, `p`, `n`, and `detectable`, the smallest correlation
        that so many languages would show with a probability of 80 %. NaN where none is defined: too few languages for
        the covariates, or one that does not vary. Languages that lack a covariate are left out, which `n` tells.
    """
    rows = {}
    for label, covariates in given.items():
        whole = table[[x, y, *covariates]].dropna().astype(np.float64)
        held = whole[list(covariates)].to_numpy() if covariates else None
        for method in ("pearson", "spearman"):
            one, detectable = Evidence(np.nan, np.nan, np.nan, len(whole)), np.nan
            with suppress(ValueError):
                one = Correlation(method, seed=seed)(whole[x].to_numpy(), whole[y].to_numpy(), held)
                detectable = Detectable().correlation(one.n, len(covariates))
            rows[label, method] = {**one.row("value"), "p": one.p, "detectable": detectable}
    found = pd.DataFrame.from_dict(rows, orient="index")
    return found.set_axis(pd.MultiIndex.from_tuples(found.index, names=["given", "method"]))


def resource_associations(consistency: pd.DataFrame, language: pd.DataFrame, pivot: str, seed: int = 0) -> pd.DataFrame:
    """Rank correlation over languages of consistency with training tokens, plain, given script and length, and within
    the pivot's script (beside claim R4).

    Args:
        consistency: by language, `value` and `log_train`; a language without `log_train` was never trained on, and has
            no tokens where it is counted.
        language: of `quality`: `other_script` and `length_ratio`, which of the pivot are 0 and 1.

    Returns:
        Index `(sample, given)`; columns as of `associations`. Empty if no training text is known.
    """
    every = beside_training(consistency, language, pivot)
    trained, every = every.dropna(subset=["log_train"]), every.fillna({"log_train": 0.0})
    if trained.empty:
        return pd.DataFrame()
    samples = {"trained languages": trained, "all, never trained as 0": every}
    own = {f"{label}, script of {pivot}": table[table["other_script"] == 0] for label, table in samples.items()}
    found = {label: associations(table, "value", "log_train", RESOURCES, seed) for label, table in samples.items()}
    lengths = {name: RESOURCES[name] for name in ("nothing", "length")}
    found |= {label: associations(table, "value", "log_train", lengths, seed) for label, table in own.items()}
    return pd.concat(found, names=["sample"]).xs("spearman", level="method")


def beside_training(consistency: pd.DataFrame, language: pd.DataFrame, pivot: str) -> pd.DataFrame:
    """What `resource_associations` correlates: `value`, `log_train`, `other_script` and `length_ratio` by language."""
    known = language[["other_script", "length_ratio"]].reindex(consistency.index)
    known.loc[known.index == pivot] = 0.0, 1.0
    return consistency[["value", "log_train"]].join(known)


def byte_associations(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """`associations` of divergence with minus bits per byte and minus their logarithm, index `(quality, given,
    method)`. English only sets the unit of the first and the zero of the second: relative to it, correlations are the
    same.

    Args:
        table: of `quality`.
    """
    bits = table["bits_per_byte"]
    sides = {"minus bits per byte": -bits, "minus log bits per byte": -np.log(bits)}
    nothing = {"nothing": GIVEN["nothing"]}
    found = {label: associations(table.assign(quality=own), given=nothing, seed=seed) for label, own in sides.items()}
    return pd.concat(found, names=["quality"])


def explained(
    table: pd.DataFrame,
    added: str = "divergence",
    base: Sequence[str] = ("distance", "other_script", "log_train"),
    seed: int = 0,
) -> pd.Series:
    """Share of the variance of quality which others leave that one predictor explains (claim R11).

    A base predictor that no language has, or in which all agree, is left out.

    Returns:
        `value` with its bootstrap interval over languages `low`, `high`, never below 0; `p` by permutation of
        residuals; `n`; `base`, the variance that the others explain; `detectable`, the smallest share of what they
        leave that so many languages would show with a probability of 80 %. All NaN but `n` where none is defined: too
        few languages, or predictors that determine one another.
    """
    kept = [name for name in base if table[name].nunique() > 1]
    whole = table[["quality", added, *kept]].dropna().astype(np.float64)
    target, small, more = whole["quality"].to_numpy(), whole[kept].to_numpy(), whole[[added]].to_numpy()
    found: dict[str, float] = dict.fromkeys(EXPLAINED, np.nan) | {"n": len(whole)}
    with suppress(ValueError):
        gain = NestedRegression(seed=seed)(target, small, more)
        drawn = np.random.default_rng(seed).integers(0, gain.n, (DRAWS, gain.n))
        large = np.concatenate([small, more], 1)
        without, within = (_explained(target[drawn], columns[drawn]) for columns in (small, large))
        left = 1 - without
        draws = (within - without)[left > 1e-9] / left[left > 1e-9]
        low, high = np.quantile(draws, [0.025, 0.975])
        found |= {"value": gain.value / (1 - gain.base), "low": low, "high": high, "p": gain.p, "base": gain.base}
        found["detectable"] = Detectable().explained(gain.n, len(kept))
    return pd.Series(found, list(EXPLAINED), dtype=np.float64, name=added)


def explained_units(
    table: pd.DataFrame, added: str = "divergence", base: Sequence[str] = ("distance", "other_script", "log_train")
) -> Units | str:
    """What the share of `explained` is made of, language by language."""
    kept = [name for name in base if table[name].nunique() > 1]
    whole = table[["quality", *kept, added]].dropna().astype(np.float64)

    def share(at: np.ndarray) -> float:
        y, *columns = whole.to_numpy()[at].T
        without, within = (float(_explained(y, np.array(own).reshape(-1, len(y)).T)) for own in (columns[:-1], columns))
        return (within - without) / (1 - without) if without < 1 - 1e-9 else np.nan

    return Units.jackknife(LANGUAGES, whole.index, share) or UNDEFINED


def correlation_units(
    table: pd.DataFrame,
    x: str = "divergence",
    y: str = "quality",
    given: Sequence[str] = (),
    method: Method = "pearson",
) -> Units | str:
    """What a correlation of `associations` is made of, language by language."""
    whole, correlation = table[[x, y, *given]].dropna().astype(np.float64), Correlation(method)
    found = Units.jackknife(LANGUAGES, whole.index, lambda at: correlation.value(whole.to_numpy()[at]))
    return found or UNDEFINED


def _explained(y: np.ndarray, predictors: np.ndarray) -> np.ndarray:
    """Explained variance in each resample; NaN where `y` is constant."""
    left = (residual(y, with_intercept(predictors)) ** 2).sum(-1)
    total = ((y - y.mean(-1, keepdims=True)) ** 2).sum(-1)
    return np.where(total > 0, 1 - left / np.where(total > 0, total, 1), np.nan)
