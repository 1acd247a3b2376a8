"""Two runs on the same texts: planted differences, none, and everything that must not be paired."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from mechanism.measure.evidence import Evidence
from mechanism.measure.units import EXPERTS, Units
from mechanism.report.claims import load_claims
from mechanism.report.compare import compare_html, compare_markdown
from mechanism.report.differences import differences
from mechanism.report.provenance import Provenance
from mechanism.report.record import keep_units, leave_undecided, read_records, read_units, record
from mechanism.report.run_folder import Run

PAGE = "10_routing_by_language"
RNG = np.random.default_rng(0)
HARD = RNG.normal(0.5, 1, 30)


@pytest.fixture
def run(tmp_path):
    """A run that judged claims on values of units, as it is read from its folder."""

    def make(label: str, data: str = "udhr 0a1b2c, tech 3d4e5f", sample: bool = False, **values: Any) -> Run:
        folder = tmp_path / f"{label}{len(list(tmp_path.iterdir()))}"
        for claim, own in values.items():
            units = Units.mean("items of de", range(len(own)), own) if not isinstance(own, str) else own
            middle, error = (0.5, 0.1) if isinstance(own, str) else (own.mean(), own.std(ddof=1) / len(own) ** 0.5)
            evidence = Evidence(middle, middle - 2 * error, middle + 2 * error, 30, 0.0, 0.5, units=units)
            record(claim, evidence, origin=Provenance({"data": data}, {}), notebook=PAGE, folder=folder)
            keep_units(claim, evidence, sample, folder)
        given = {"model": label, "seed": 0, "max_segments": None, "data": [f"/home/{label}/udhr"]}
        summary = {
            "model": {"name": label}, "state": "complete", "settings": {}, "skipped": {}, "environment": {},
            "notebooks": {PAGE: {"status": "executed", "parameters": given}},
        }  # fmt: skip
        return Run(label, summary, read_records(folder), {}, read_units(folder))

    return make


def noisy(shift: float = 0.0) -> np.ndarray:
    return HARD + shift + RNG.normal(0, 0.1, 30)


def test_a_planted_difference_is_found_among_claims_without_one(run):
    one = run("first", R6=noisy(), R7=noisy(), D5=noisy())
    two = run("second", R6=noisy(0.2), R7=noisy(), D5=noisy())
    bounds = [own.records["R6"]["interval"] for own in (one, two)]
    assert bounds[0][1] > bounds[1][0], "each model's own interval says nothing"
    rows = {row["id"]: row for row in differences([one, two])}
    assert list(rows) == ["R6", "R7", "D5"]
    p = [row["p"] for row in rows.values()]
    assert [row["holm"] for row in rows.values()] == pytest.approx(multipletests(p, method="holm")[1].tolist())
    assert rows["R6"]["holm"] < 1e-4
    assert rows["R6"]["low"] < 0.2 < rows["R6"]["high"]
    assert rows["R6"]["told"] == "the second lies higher"
    for claim in ("R7", "D5"):
        assert rows[claim]["holm"] > 0.05
        least = rows[claim]["detectable"]
        assert f"no difference is shown; one below {least:.3g} could not have been seen" in rows[claim]["told"]
        assert rows[claim]["high"] - rows[claim]["difference"] < least < 0.2, "less than the planted one"
    page, text = compare_html([one, two]), compare_markdown([one, two])
    for told in ("the second lies higher", "could not have been seen", f"{rows['R6']['detectable']:.3g}"):
        assert told in page
        assert told in text


def test_more_than_the_smallest_effect_of_interest_may_have_been_missed(run):
    rows = differences([run("a", R6=100 * HARD), run("b", R6=RNG.permutation(100 * HARD))])
    assert rows[0]["detectable"] > load_claims()["R6"].smallest
    assert "even one as large as the smallest effect of interest" in rows[0]["told"]


def test_the_same_run_twice_differs_in_nothing(run):
    one = run("a", R6=noisy(), D5=noisy(), R7=noisy())
    for row in differences([one, replace(one, label="b")]):
        assert (row["difference"], row["holm"], row["told"]) == (0.0, 1.0, "the same in every unit")
    assert differences([one]) == []
    assert "Differences" not in compare_html([one])


def test_every_pair_of_runs_is_tested_in_one_family(run):
    runs = [run(name, R6=noisy(shift)) for name, shift in (("a", 0.0), ("b", 0.0), ("c", 0.3))]
    rows = differences(runs)
    assert [row["models"] for row in rows] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert [row["holm"] < 0.05 for row in rows] == [False, True, True]
    assert rows[1]["holm"] == pytest.approx(
        min(3 * rows[1]["p"], 2 * rows[2]["p"] if rows[2]["p"] < rows[1]["p"] else 1)
    )


def changed(own: Run, **given: Any) -> Run:
    pages = {PAGE: {"parameters": own.summary["notebooks"][PAGE]["parameters"] | given}}
    return replace(own, summary={**own.summary, "notebooks": pages})


def test_what_did_not_read_the_same_is_not_paired(run):
    one, two = run("a", R6=noisy()), run("b", R6=noisy())
    digest = replace(two, records={"R6": two.records["R6"] | {"digest": "0"}})
    cases = {
        "their texts differ": run("b", "udhr 0a1b2c, tech ffffff", R6=noisy()),
        "the runs differ in max_segments, seed, which decides what is read": changed(two, seed=1, max_segments=8),
        "one is judged on a sample and the other on the full result": run("b", sample=True, R6=noisy()),
        "the claim is defined in another way": digest,
        f"b: {EXPERTS}": run("b", R6=EXPERTS),
        "b: no values of single units are kept of it": replace(two, units={}),
        "b: the report's records keep no values of single units": replace(two, units={}, summary={}),
    }
    for reason, other in cases.items():
        (row,) = differences([one, other])
        assert set(row) == {"id", "models", "reason"}
        assert reason in row["reason"]
        assert f"not compared: {row['reason']}" in compare_markdown([one, other])


def test_the_place_of_texts_the_device_and_precision_may_differ(run):
    one, two = run("a", "udhr 0a1b2c", R6=noisy()), run("b", "mine 0a1b2c", R6=noisy())
    (row,) = differences([changed(one, dtype="float32"), changed(two, dtype="bfloat16", device="cuda", profile="full")])
    assert "holm" in row


def test_claims_that_only_one_run_judged_are_left_out(run, tmp_path):
    one, two = run("a", R6=noisy(), R7=noisy()), run("b", R6=noisy())
    leave_undecided("R7", "no control", tmp_path / "c")
    assert [row["id"] for row in differences([one, two])] == ["R6"]
