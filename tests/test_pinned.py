"""What moving code must not change: addresses of committed records, and verdicts with their numbers."""

import csv
import json
from pathlib import Path

import pytest

from mechanism.corpus.library import DATA
from mechanism.measure.evidence import Evidence, NotTestable
from mechanism.models.load import load
from mechanism.report.record import read_records
from mechanism.study.base import runs as training_runs
from mechanism.study.base.records import address, recorded, texts_hash
from mechanism.study.d_domains import reweighting, sweep, swept_text
from mechanism.study.grids import load_grid
from mechanism.study.r_multilingual import steering
from mechanism.study.r_multilingual.config import ChapterConfig

PINNED = Path(__file__).parent / "pinned"
ADDRESSES = (PINNED / "addresses.txt").read_text("utf-8").split()
VERDICTS = list(csv.DictReader((PINNED / "verdicts.csv").read_text("utf-8").splitlines()))
OWN_DATA = {"routing_by_language", "sweep", "text of a sweep"}
"""Studies whose configuration names its corpora as `data`, which the hash of the texts overwrites in the file: how they
are found is tested below."""


def test_every_committed_address_is_still_there():
    found = {path.parent.relative_to(training_runs.RUNS).as_posix() for path in training_runs.RUNS.rglob("config.json")}
    assert set(ADDRESSES) <= found


@pytest.mark.parametrize("name", [name for name in ADDRESSES if "/" not in name])
def test_a_record_stands_at_the_address_of_its_configuration(name: str):
    config = json.loads((training_runs.RUNS / name / "config.json").read_text("utf-8"))
    if "study" in config:
        data = config.pop("data")
        if config["study"] in OWN_DATA:
            return
        assert address(config, data) == name
        assert recorded(config, data) is not None
    else:
        assert training_runs.find_run(config["name"]).hash == name


GRIDS = sorted({name.split("/")[0] for name in ADDRESSES if "/" in name})


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_find_their_runs(grid: str):
    """A grid may grow; what was made stays where it is."""
    planned = {f"{grid}/{run.hash}" for _, _, run in load_grid(grid).planned() if run is not None and run.done}
    assert {name for name in ADDRESSES if name.startswith(f"{grid}/")} <= planned


def test_studies_of_the_embedded_model_find_their_records():
    full = ChapterConfig.of("embedded", max_segments=None, n_boot=2000)
    assert recorded(full.key("embedded", "float32"), texts_hash(full.corpora())) is not None
    assert recorded(*sweep.record_key("embedded")) is not None
    assert recorded(*swept_text._address("embedded", "float32", sweep.SWEEP)) is not None


def test_records_of_trials_are_found_and_give_the_numbers_of_before():
    lm = load("embedded", "cpu")
    steered = steering.study(lm.model, lm.tokenizer, lm.spec, lm.dtype)
    reweighted = reweighting.study(lm.model, lm.tokenizer, lm.spec, lm.dtype)
    records = [one.data.attrs["record"] for one in (*steered.results.values(), reweighted)]
    assert records == ["8c760634c247", "e1abace0e88d", "1c07760dddff"]
    assert not steered.awaits + reweighted.awaits
    found = {**steered.claims(), "D5": reweighted.evidence()}
    for row in VERDICTS:
        if row["id"] in found:
            evidence = found[row["id"]]
            if isinstance(evidence, NotTestable):
                assert row["verdict"] == "not testable here"
                continue
            assert isinstance(evidence, Evidence)
            now = evidence.checked().plain()
            numbers = now["estimate"], *now["interval"], now["n"], now["null"], now["p"]
            assert ["" if value is None else str(value) for value in numbers] == list(row.values())[2:]


@pytest.mark.parametrize("row", VERDICTS, ids=lambda row: row["id"])
def test_verdicts_and_their_numbers_are_those_of_before(row: dict[str, str]):
    found = read_records(DATA / "results")[row["id"]]
    low, high = found["interval"] or (None, None)
    now = [found["verdict"], found["estimate"], low, high, *(found[name] for name in ("n", "null", "p"))]
    assert ["" if value is None else str(value) for value in now] == [row[name] for name in list(row)[1:]]
