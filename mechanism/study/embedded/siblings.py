"""Runs side by side: what their records say about the same tasks, and which of them are still to be made."""

import json
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from ...corpus.languages import TRAINED
from ...corpus.library import PARALLEL
from ..base.runs import EVALUATION, SHARES, records
from . import compression as baselines
from .history import History, load_history

ENGLISH_PROBLEMS = 0.6
ENOUGH = 150  # candidates below which retrieval is not compared with that among 200
SEEDS = ("seed0", "seed1", "seed2")
SIBLINGS = (*SEEDS, "control", "dense")
FAMILY = ("main", *SIBLINGS)


def evaluations(names: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Recorded task tables by run, of those names that have one."""
    known = records()
    paths = {name: known[name] / EVALUATION for name in names if name in known}
    return {name: pd.read_csv(path) for name, path in paths.items() if path.exists()}


def to_make(names: Iterable[str] = SIBLINGS, compression: bool = True) -> str:
    """One sentence with the commands that make what is not recorded yet, of runs and of the compression baselines;
    empty when nothing is missing."""
    names = list(names)
    there = evaluations(names)
    commands = [f"`mechanism train --config {name}`" for name in names if name not in there]
    if compression and baselines.recorded() is None:
        commands.append("`mechanism bench compression`")
    return f"Not recorded yet, and left out here; made by {', '.join(commands)}." if commands else ""


def lacking(run: str | None, names: Iterable[str]) -> str:
    """Why the model that a run made cannot be held against these runs: it is none of them, or some are to be made;
    empty where it can."""
    if run not in FAMILY:
        return "it is about siblings of the report's own model, and this model has none here"
    return to_make(names, compression=False)


def bits_table(tables: Mapping[str, pd.DataFrame], compression: pd.DataFrame | None = None) -> pd.DataFrame:
    """Bits per byte by language and corpus: a column per model's task table, and `xz` and `ppm` where they are known.

    Rows are those of the first table; a cell without a number is NaN.
    """
    keys = ["lang", "corpus"]
    columns = {
        name: table[table["task"] == "bits_per_byte"].set_index(keys)["estimate"] for name, table in tables.items()
    }
    if compression is not None:
        columns |= {name: compression.set_index(keys)[name] for name in ("xz", "ppm")}
    index = columns[next(iter(tables))].index
    return pd.DataFrame({name: column.reindex(index) for name, column in columns.items()}, index=index)


def choice_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Pooled next-segment choice and word problems, one row per language and task: `estimate`, `low`, `high`, `n`,
    `chance` and whether the interval is `above chance`."""
    wanted = {"next_segment_pooled": "next segment", "word_problem": "word problems"}
    kept = scores[scores["task"].isin(wanted)].replace({"task": wanted})
    kept = kept[["lang", "task", "estimate", "low", "high", "n", "chance"]]
    return kept.assign(**{"above chance": np.where(kept["low"] > kept["chance"], "yes", "no")}).reset_index(drop=True)


def problem_remark(scores: pd.DataFrame) -> str:
    """Whether English word problems reach what is asked of a model that the report studies; empty without any."""
    rows = scores[(scores["task"] == "word_problem") & (scores["lang"] == "en")]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    verdict = "reaches" if row["estimate"] >= ENGLISH_PROBLEMS else "stays below"
    return (
        f"Word problems in English: {row['estimate']:.0%} (95 % interval {row['low']:.0%} to {row['high']:.0%}, chance "
        f"{row['chance']:.0%}); this {verdict} the {ENGLISH_PROBLEMS:.0%} that the report asks of the model it studies."
    )


def compression_remark(bits: pd.DataFrame) -> str:
    """Where the first column of `bits_table` needs more bits for English than PPM does; empty without baselines."""
    if "ppm" not in bits or "en" not in bits.index.get_level_values("lang"):
        return ""
    english = bits.loc["en"].dropna(subset=["ppm"])
    worse = english.index[english.iloc[:, 0] > english["ppm"]]
    named = f": {', '.join(worse)}" if len(worse) else ""
    return f"For English, the model needs more bits than PPM in {len(worse)} of {len(english)} corpora{named}."


def comparison(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Runs by tasks, means over the languages trained on: `bits en` over corpora, `bits others` over languages and
    parallel corpora, `next segment`, `word problems en`, `word problems others`, and `retrieval`, centred, in the best
    middle layer on technical help."""
    return pd.DataFrame({name: _means(table) for name, table in tables.items()}).T


def _means(table: pd.DataFrame) -> dict[str, float]:
    table = table[table["lang"].isin(TRAINED)]
    english = table["lang"] == "en"

    def mean(task: str, which: pd.Series) -> float:
        return float(table.loc[(table["task"] == task) & which, "estimate"].mean())

    centred = table[(table["task"] == "retrieval_centred") & (table["corpus"] == "tech")]
    by_layer = centred.groupby("layer")["estimate"].mean()
    return {
        "bits en": mean("bits_per_byte", english),
        "bits others": mean("bits_per_byte", ~english & table["corpus"].isin(PARALLEL)),
        "next segment": mean("next_segment", english | ~english),
        "word problems en": mean("word_problem", english),
        "word problems others": mean("word_problem", ~english),
        "retrieval": float(by_layer.reindex(middle(len(by_layer))).max()),
    }


def middle(states: int) -> list[int]:
    """Middle hidden states of a model with so many (the embedding is number 0): from a quarter to three quarters of its
    depth."""
    layers = states - 1
    return list(range(-(-layers // 4), 3 * layers // 4 + 1))


def histories(names: Iterable[str]) -> dict[str, History]:
    """Records of those runs that have one and that route: a dense model has nothing to show."""
    known = records()
    found = {name: load_history(name) for name in dict.fromkeys(names) if name in known}
    return {name: history for name, history in found.items() if "divergence" in history.stats}


def emergence_curve(stats: xr.Dataset, enough: int = ENOUGH) -> pd.DataFrame:
    """`divergence` of routing from English and centred `retrieval` of English along training, on technical help: means
    over middle layers and those trained languages that have `enough` segments, indexed by `tokens_seen`."""
    part = stats.sel(corpus="tech")
    sizes = part["divergence"].isel(tokens_seen=-1, layer=0).count("segment").to_pandas()
    codes = [code for code in sizes.index if code in TRAINED and code != "en" and sizes[code] >= enough]
    states = middle(part.sizes["state"])
    part = part.sel(lang=codes)
    curves = {
        # hidden state l is the output of layer l - 1
        "divergence": part["divergence"].isel(layer=[state - 1 for state in states]).mean("layer"),
        "retrieval": part["hits_centred"].isel(state=states).mean("state"),
    }
    return pd.DataFrame({name: curve.mean("segment").mean("lang").to_pandas() for name, curve in curves.items()})


def stated_shares(mixture: Mapping[str, float], measured: Mapping[str, float]) -> pd.DataFrame:
    """Kinds of documents: the share of documents that the configuration states beside the measured share of tokens."""
    stated = {kind: mixture[kind] for kind in ("bilingual", "problems")}
    stated["monolingual"] = 1 - sum(stated.values())
    table = pd.DataFrame({"of documents, stated": stated, "of tokens, measured": measured})
    return table.loc[list(stated)]


def recorded_shares(name: str) -> dict[str, float] | None:
    """Measured shares of a run's stream from its record, None where they are not there."""
    path = records()[name] / SHARES
    return json.loads(path.read_text("utf-8")) if path.exists() else None
