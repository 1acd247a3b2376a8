"""The evidence on claims R1 to R5 and R9 to R12, and what effect the data would have shown."""

import json
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr
from statsmodels.stats.proportion import proportion_confint

from ...measure.correlation import Correlation
from ...measure.evidence import Evidence
from ...measure.power import Detectable
from ...measure.statistics import ClusterBootstrap
from ..embedded import siblings
from . import sharing
from .language_experts import TAU
from .observe import POOLED
from .profiles import entropy_falls, u_shaped
from .quality import resource_associations
from .tables import Chapter, array, table

FIELDS = [name for name in Evidence._fields if name != "note"]
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


def claims(found: xr.Dataset) -> dict[str, Evidence | str]:
    """What each claim is judged on, or the reason why it cannot be.

    Args:
        found: of `routing.study`; R10 and R12 rest on siblings of the `run` in its attributes besides.
    """
    judged: dict[str, Evidence | str] = json.loads(found.attrs["undecided"])
    judged |= {str(claim): Evidence(*row[FIELDS]) for claim, row in table(found, "evidence").iterrows()}
    run, seed = found.attrs["run"], found.attrs["seed"]
    if isinstance(judged["R4"], Evidence):
        judged["R4"] = judged["R4"]._replace(note=_told(resources(found), found.attrs["pivot"]))
    judged["R10"] = _beside_twin(judged["R10"], run, seed)
    return judged | {"R12": _without_bilingual(run)}


def evidence(chapter: Chapter) -> tuple[pd.DataFrame, dict[str, str]]:
    """What the observed text says on the claims, by claim, and the reasons why it says nothing on others."""
    wide, tables, seed = chapter.wide, chapter.tables, chapter.config.seed
    judges: dict[str, Callable[[], Evidence]] = {
        "R1": lambda: share(u_shaped(tables["shape"].loc[POOLED, "divergence"])),
        "R2": lambda: _estimated(tables["association"].loc[wide.attrs["corpus"], "nothing", "pearson"]),
        "R3": lambda: share(entropy_falls(tables["falls"])),
        "R4": lambda: _resources(tables["consistency"].dropna(), seed),
        "R5": lambda: _disjoint(tables["overlap"], wide.sizes["layer"] * wide.sizes["expert"]),
        "R9": lambda: _strange(tables["held_out"]),
        "R10": lambda: share(tables["shared"]["shared"]),
        "R11": lambda: _estimated(tables["explained"].loc["divergence"]),
    }
    found, missing = {}, {}
    for claim, judge in judges.items():
        try:
            found[claim] = judge()._asdict()
        except ValueError as reason:
            missing[claim] = str(reason)
    return pd.DataFrame.from_dict(found, orient="index", columns=FIELDS).rename_axis("claim"), missing


def power(chapter: Chapter) -> pd.Series:
    """The smallest effect that the data would have shown with a probability of 80 %, by claim; see `DETECTABLE`. Where
    a claim is about each language (or layer), the median over them."""
    tables, test = chapter.tables, Detectable()
    bounds = {
        "R1": tables["shape"].loc[POOLED, "divergence"].xs("ends-middle", level="contrast"),
        "R3": tables["falls"].query("contrast == 'slope_difference'"),
        "R9": tables["held_out"],
        "R10": tables["shared"].rename(columns={"best_low": "low", "best_high": "high"}),
    }
    found = {
        claim: float(np.median([test.difference(*bound) for bound in own[["low", "high"]].to_numpy(np.float64)]))
        for claim, own in bounds.items()
        if len(own)
    }
    languages = tables["language"].loc[chapter.wide.attrs["corpus"]]
    sizes = {"R2": len(languages), "R4": int(tables["consistency"]["log_train"].notna().sum())}
    found |= {claim: test.correlation(n) for claim, n in sizes.items() if n > 3}
    found["R11"] = float(tables["explained"].loc["divergence", "detectable"])
    return pd.Series(found, dtype=np.float64, name="power").rename_axis("claim")


def detectable(found: xr.Dataset, judged: Mapping[str, Evidence | str]) -> pd.DataFrame:
    """`power` of the observed text and of R12, by claim: `detectable`, and which `effect` it is."""
    shown = found["power"].dropna("claim").to_pandas()
    if isinstance(own := judged["R12"], Evidence):
        shown["R12"] = Detectable().difference(own.low, own.high, freedom=own.n - 1.0)
    return shown.to_frame("detectable").assign(effect=[DETECTABLE[claim] for claim in shown.index])


def answered(chapter: Chapter) -> xr.Dataset:
    """Everything that the chapter shows, ready to be recorded: tables, `evidence` and `power`."""
    found, (told, missing) = chapter.dataset(), evidence(chapter)
    more = [array("evidence", told), power(chapter).to_xarray()]
    return xr.merge([found, *more], join="outer", combine_attrs="override").assign_attrs(undecided=json.dumps(missing))


def share(flags: Iterable[bool]) -> Evidence:
    """Share of languages, or layers, that have a property, with Wilson's 95 % interval.

    Raises:
        ValueError: there are none.
    """
    values = np.array(list(flags), dtype=bool)
    if not len(values):
        raise ValueError("no language is left to take a share of")
    low, high = proportion_confint(int(values.sum()), len(values), method="wilson")
    return Evidence(float(values.mean()), float(low), float(high), len(values))


def resources(found: xr.Dataset) -> pd.DataFrame:
    """`resource_associations` in the corpus with most languages."""
    language = table(found, "language").xs(found.attrs["wide"], level="corpus")
    return resource_associations(table(found, "consistency"), language, found.attrs["pivot"], found.attrs["seed"])


def _estimated(row: pd.Series) -> Evidence:
    if np.isnan(row["value"]):
        raise ValueError(f"{row['n']:.0f} languages are too few, or what is compared does not vary")
    return Evidence(row["value"], row["low"], row["high"], int(row["n"]), p=row["p"])


def _resources(consistency: pd.DataFrame, seed: int) -> Evidence:
    if consistency.empty:
        raise ValueError("how much text of each language the model was trained on is not known")
    sides = consistency["value"].to_numpy(), consistency["log_train"].to_numpy()
    return Correlation("spearman", seed=seed)(*sides)


def _disjoint(overlap: pd.DataFrame, experts: int) -> Evidence:
    if overlap.empty:
        raise ValueError("there is no task in the language of the base: nothing can overlap")
    row = overlap.loc[TAU]
    return Evidence(row["shared"], row["low"], row["high"], experts, p=row["p_fewer_permuted"])


def _strange(held_out: pd.DataFrame) -> Evidence:
    if held_out.empty:
        raise ValueError(
            "no text in a language that the model surely does not know, beside one of the same script that it does"
        )
    return share(held_out["low"] > 0)


def _told(rows: pd.DataFrame, pivot: str) -> str:
    """What is left of the rank correlation given script and within the pivot's, in words."""
    labels = {
        ("trained languages", "script"): "given script",
        (f"trained languages, script of {pivot}", "nothing"): f"within the script of {pivot}",
        (f"all, never trained as 0, script of {pivot}", "nothing"): "there with languages never trained on",
    }
    told = [
        f"{label} {row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}], p = {row['p']:.3f}, n = {row['n']:.0f}"
        for label, row in ((label, rows.loc[key]) for key, label in labels.items())
        if pd.notna(row["value"])
    ]
    return f"rank correlation {'; '.join(told)}" if told else ""


def _beside_twin(own: Evidence | str, run: str, seed: int) -> Evidence | str:
    """R10 with the share of languages that the dense twin shares in its middle layers as null."""
    if absent := siblings.lacking(run, sharing.TWINS):
        return absent
    if isinstance(own, str):
        return own
    probes = sharing.twin_probes()
    if not probes:
        return "the dense twin or its sibling is not finished"
    twins = sharing.twin_table(probes, ClusterBootstrap(seed=seed))
    each = (f"{name} {row['shared']:.2f} of {row['languages']:.0f} languages" for name, row in twins.iterrows())
    note = f"on the probes, at {twins['million tokens'].iloc[0]:.0f} M tokens: {', '.join(each)}"
    return own._replace(null=float(twins.loc["dense", "shared"]), note=note)


def _without_bilingual(run: str) -> Evidence | str:
    if absent := siblings.lacking(run, sharing.BILINGUAL):
        return absent
    return sharing.control_difference(sharing.without_bilingual(siblings.histories(sharing.BILINGUAL)))
