"""The evidence on claims R1 to R5 and R9 to R12, and what effect the data would have shown."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import xarray as xr

from ...measure.evidence import Evidence
from ...measure.paired import SeedMean
from ...measure.power import Detectable
from ...measure.statistics import ClusterBootstrap
from ...measure.units import EXPERTS, OVER_SEEDS, Units
from ..base.records import recordings
from ..embedded import siblings
from . import sharing
from .effects import OneModel, Seeds
from .language_experts import TAU
from .quality import beside_training, correlation_units, explained, explained_units, resource_associations
from .tables import table

STUDY = "routing_by_language"
DETECTABLE = {
    "R1": "depth of the U",
    "R2": "correlation over languages",
    "R3": "fall of entropy, share of the largest",
    "R4": "rank correlation over languages, given script",
    "R9": "divergence beyond that of known languages, share",
    "R10": "difference of retrieval",
    "R11": "share of what the other predictors leave",
    "R12": "divergence beyond that with bilingual documents, share",
}


def claims(found: xr.Dataset) -> dict[str, Evidence | str]:
    """What each claim is judged on, or the reason why it cannot be.

    R1 to R3, R9 and R10 rest on the probes of three seeds if the model is one of the report's, else on its languages;
    R4, R5 and R11 on the records of `models`.

    Args:
        found: of `routing.study`; `run` and `seed` in its attributes.
    """
    run, seed = found.attrs["run"], found.attrs["seed"]
    of_seeds = run in siblings.FAMILY
    own, models = OneModel(found), studies(found)
    if absent := siblings.lacking(run, siblings.SEEDS) if of_seeds else "":
        return dict.fromkeys((*DETECTABLE, "R5"), absent)
    effects = Seeds.recorded(seed=seed) if of_seeds else own
    shuffled = [OneModel(one).dips("shuffled").mean() for one in models]
    judges: dict[str, Callable[[], Evidence]] = {
        "R1": lambda: effects.dip().against(sum(shuffled) / len(shuffled)),
        "R2": effects.correlation,
        "R3": effects.falls,
        "R4": lambda: _resources(models),
        "R5": lambda: _overlap(models),
        "R9": effects.apart,
        "R10": lambda: _beside_twin(effects.gain(), run, seed),
        "R11": lambda: _explained(models),
        "R12": lambda: _without_bilingual(run),
    }
    judged: dict[str, Evidence | str] = {}
    for claim, judge in judges.items():
        try:
            judged[claim] = judge()
        except ValueError as reason:
            judged[claim] = str(reason)
    return judged


def studies(found: xr.Dataset) -> list[xr.Dataset]:
    """The chapter's studies of the three seeds, if all are recorded and the model is one of the report's; else that of
    the model alone."""
    kept = kept_studies() if found.attrs["run"] in siblings.FAMILY else {}
    about = {name: found.attrs[name] for name in ("run", "seed")}
    seeds = [kept[name].assign_attrs(about) for name in siblings.SEEDS if name in kept]
    return seeds if len(seeds) == len(siblings.SEEDS) else [found]


def kept_studies() -> dict[str, xr.Dataset]:
    """Full records of the chapter's study by the run that made the model."""
    every = (read() for _, read in recordings(STUDY))
    return {str(own.attrs.get("run", "")): own for own in every}


def detectable(found: xr.Dataset, judged: Mapping[str, Evidence | str]) -> pd.DataFrame:
    """The smallest effect that the data would have shown with a probability of 80 %, by claim: `detectable`, and which
    `effect` it is."""
    test, shown = Detectable(), {}
    for claim, own in judged.items():
        if claim in DETECTABLE and isinstance(own, Evidence):
            shown[claim] = test.difference(own.low, own.high, freedom=own.n - 1.0)
    rows = table(found, "explained")
    bounds = {"R11": rows.loc["divergence", "detectable"]} if len(rows) else {}
    if isinstance(own := judged["R4"], Evidence):
        bounds["R4"] = test.correlation(own.n, 1)
    series = pd.Series({**shown, **bounds}, dtype=float)
    return series.to_frame("detectable").assign(effect=[DETECTABLE[claim] for claim in series.index])


def resources(found: xr.Dataset) -> pd.DataFrame:
    """`resource_associations` in the corpus with most languages, over `studies`."""
    return _resource_rows(studies(found))


def _resource_rows(models: Sequence[xr.Dataset]) -> pd.DataFrame:
    return resource_associations(*_consistency(models), models[0].attrs["seed"])


def _consistency(models: Sequence[xr.Dataset]) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    about = models[0].attrs
    language = _mean(models, "language").xs(about["wide"], level="corpus")
    return _mean(models, "consistency"), language, about["pivot"]


def _mean(models: Sequence[xr.Dataset], name: str) -> pd.DataFrame:
    """A table averaged over models."""
    tables = [table(one, name) for one in models]
    return pd.concat(tables).groupby(level=list(range(tables[0].index.nlevels)), sort=False).mean()


def _resources(models: Sequence[xr.Dataset]) -> Evidence:
    rows = _resource_rows(models)
    if rows.empty:
        raise ValueError("how much text of each language the model was trained on is not known")
    found = _row(rows.loc[("trained languages", "script")])
    units: Units | str = OVER_SEEDS
    if len(models) == 1:
        own = beside_training(*_consistency(models)).dropna(subset=["log_train"])
        units = correlation_units(own, "value", "log_train", ("other_script",), "spearman")
    return found._replace(note=_told(rows, models[0].attrs["pivot"]), units=units)


def _explained(models: Sequence[xr.Dataset]) -> Evidence:
    language = _mean(models, "language").xs(models[0].attrs["wide"], level="corpus")
    found = _row(explained(language, seed=models[0].attrs["seed"]))
    return found._replace(units=OVER_SEEDS if len(models) > 1 else explained_units(language))


def _row(row: pd.Series) -> Evidence:
    if pd.isna(row["value"]):
        raise ValueError(f"{row['n']:.0f} languages are too few, or what is compared does not vary")
    return Evidence.of_row(row, "value")


def _overlap(models: Sequence[xr.Dataset]) -> Evidence:
    """R5: shared experts over those that chance would give; Student's interval over models, if there are several."""
    rows = [table(one, "overlap") for one in models]
    if any(own.empty for own in rows):
        raise ValueError("there is no task in the language of the base: nothing can overlap")
    at = [own.loc[TAU] for own in rows]
    if not all(own["expected_permuted"] > 0 for own in at):
        raise ValueError(f"at a threshold of {TAU} chance shares no expert either: nothing can be avoided")
    ratios = pd.DataFrame([own[["shared", "low", "high"]] / own["expected_permuted"] for own in at])
    p = max(float(own["p_fewer_permuted"]) for own in at)
    note = "; ".join(f"{own['shared']:.0f} shared, {own['expected_permuted']:.1f} by chance" for own in at)
    if len(at) > 1:
        return SeedMean()(ratios["shared"].to_numpy()).against(1.0, p, note)._replace(units=OVER_SEEDS)
    documents = table(models[0], "profile").loc[(models[0].attrs["wide"], "entropy", models[0].attrs["pivot"]), "n"]
    own = Evidence.of_row({**ratios.iloc[0], "n": documents.iloc[0]}, "shared")
    return own.against(1.0, p, note)._replace(units=EXPERTS)


def _told(rows: pd.DataFrame, pivot: str) -> str:
    """The plain rank correlation and what is left of it within the pivot's script, in words."""
    labels = {
        ("trained languages", "nothing"): "plain",
        (f"trained languages, script of {pivot}", "nothing"): f"within the script of {pivot}",
        (f"all, never trained as 0, script of {pivot}", "nothing"): "there with languages never trained on",
    }
    told = [
        f"{label} {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}], p = {row['p']:.3f}, n = {row['n']:.0f}"
        for label, row in ((label, rows.loc[key]) for key, label in labels.items())
        if pd.notna(row["value"])
    ]
    return f"rank correlation {'; '.join(told)}" if told else ""


def _beside_twin(own: Evidence, run: str, seed: int) -> Evidence:
    """R10 with the gain of the dense twin as null."""
    if absent := siblings.lacking(run, sharing.TWINS):
        raise ValueError(absent)
    twins = sharing.twin_table(sharing.twin_probes(), ClusterBootstrap(seed=seed))
    if twins.empty:
        raise ValueError("the dense twin or its sibling is not finished")
    return own.against(float(twins.loc["dense", "gain"]))


def _without_bilingual(run: str) -> Evidence:
    if absent := siblings.lacking(run, sharing.BILINGUAL):
        raise ValueError(absent)
    runs = siblings.histories(sharing.BILINGUAL)
    retrieved = sharing.control_difference(sharing.without_bilingual(runs, sharing.middle_retrieval))
    note = "retrieval in the best middle state, so compared: {:+.2f} [{:+.2f}, {:+.2f}]".format(*retrieved[:3])
    return sharing.control_difference(sharing.without_bilingual(runs))._replace(note=note)
