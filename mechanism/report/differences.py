"""Differences between runs on the same texts and items, claim by claim: tested, corrected, or too small to be seen."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from statsmodels.stats.multitest import multipletests

from ..measure.units import Difference, Units, UnpairedError, paired
from .claims import load_claims
from .run_folder import Run

LEVEL = 0.05
OWN = ("model", "device", "dtype", "data", "profile")
"""Parameters that may differ between runs that are paired: texts are known by their hashes, samples are marked."""
HEADER = ("Claim", "first", "second", "second less first", "p (Holm)", "smallest that would be seen", "what it says")


def differences(runs: Sequence[Run], level: float = LEVEL) -> list[dict[str, Any]]:
    """A mapping per claim and two runs that both have an estimate of it: `id`, `models`, and either `reason`, why the
    two cannot be paired, or `first` and `second`, estimates on the units that both have, `difference`, second less
    first, with `low`, `high`, `p` and `n`; `holm`, p corrected over all that are tested; `detectable`, the smallest
    difference that is seen with a probability of 80 % whatever becomes of the others; and `told`, in words."""
    pairs = [
        (claim, one, two) for one, two in combinations(runs, 2) for claim in load_claims() if _both(claim, one, two)
    ]
    found = [_tested(*pair) for pair in pairs]
    tested = [own for own in found if isinstance(own, Difference)]
    adjusted = iter(multipletests([own.p for own in tested], method="holm")[1].tolist() if tested else ())
    rows = []
    for (claim, one, two), own in zip(pairs, found, strict=True):
        row: dict[str, Any] = {"id": claim, "models": [one.label, two.label]}
        if isinstance(own, str):
            rows.append(row | {"reason": own})
            continue
        holm, least = next(adjusted), own.detectable(level / len(tested))
        row |= {**own._asdict(), "difference": own.estimate, "holm": holm, "detectable": least}
        rows.append(
            {k: v for k, v in row.items() if k != "estimate"} | {"told": _told(claim, own, holm <= level, least)}
        )
    return rows


def difference_rows(runs: Sequence[Run]) -> list[list[str]]:
    """`differences` as cells below `HEADER`."""
    rows = []
    for row in differences(runs):
        name = f"{row['id']}: {' / '.join(row['models'])}"
        if "reason" in row:
            rows.append([name, "", "", "", "", "", f"not compared: {row['reason']}"])
        else:
            bounds = f"{row['difference']:+.3g} [{row['low']:.3g}, {row['high']:.3g}], n = {row['n']:,}"
            numbers = (f"{row[key]:.3g}" for key in ("first", "second"))
            rows.append([name, *numbers, bounds, f"{row['holm']:.2g}", f"{row['detectable']:.3g}", row["told"]])
    return rows


def _both(claim: str, *runs: Run) -> bool:
    return all(run.records.get(claim, {}).get("estimate") is not None for run in runs)


def _tested(claim: str, one: Run, two: Run) -> Difference | str:
    """The test, or why there is none."""
    for run in (one, two):
        if run.units.get(claim, {}).get("units") is None:
            return f"{run.label}: {_lacking(run.units.get(claim, {}), bool(run.summary))}"
    records, kept = ([getattr(run, name)[claim] for run in (one, two)] for name in ("records", "units"))
    if unlike := _unlike(one, two, records):
        return unlike
    if kept[0]["sample"] != kept[1]["sample"]:
        return "one is judged on a sample and the other on the full result; give both the same --profile"
    first, second = (Units.read(own["units"]) for own in kept)
    try:
        return paired(first, second, (records[0]["estimate"], records[1]["estimate"]))
    except UnpairedError as error:
        return str(error)


def _lacking(kept: Mapping[str, Any], own: bool) -> str:
    if not own:
        return "the report's records keep no values of single units; `mechanism run` on its model does"
    return (
        kept.get("reason") or "no values of single units are kept of it; `mechanism run --force` makes the page again"
    )


def _unlike(one: Run, two: Run, records: Sequence[Mapping[str, Any]]) -> str:
    """Why the two did not read the same: their texts by hash, or what chooses among them; empty if they did."""
    if records[0]["digest"] != records[1]["digest"]:
        return "the claim is defined in another way in each of them"
    if _hashes(records[0]) != _hashes(records[1]):
        return "their texts differ"
    given = [
        run.summary["notebooks"].get(own["notebook"], {}).get("parameters", {})
        for run, own in zip((one, two), records, strict=True)
    ]
    names = [name for name in sorted({*given[0], *given[1]} - {*OWN}) if given[0].get(name) != given[1].get(name)]
    return f"the runs differ in {', '.join(names)}, which decides what is read" if names else ""


def _hashes(record: Mapping[str, Any]) -> list[str]:
    """Hash of each text that a record rests on, its name where it has no hash."""
    return [part.split()[-1] for part in record["provenance"].get("data", "").split(", ") if part]


def _told(claim: str, own: Difference, seen: bool, least: float) -> str:
    smallest = abs(load_claims()[claim].smallest)
    if seen:
        told = f"the second lies {'higher' if own.estimate > 0 else 'lower'}"
    elif own.low == own.high:
        told = "the same in every unit"
    else:
        told = f"no difference is shown; one below {least:.3g} could not have been seen"
        if not math.isnan(smallest) and least > smallest:
            told += f", even one as large as the smallest effect of interest, {smallest:.3g}"
    return told + (f"; {own.left} units are not in both" if own.left else "")
