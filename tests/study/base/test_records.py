import json

import numpy as np
import pytest
import xarray as xr

from mechanism.corpus.store import Corpus, Segment
from mechanism.study.base import runs as training_runs
from mechanism.study.base.records import (
    StudyError,
    address,
    other_seeds,
    recorded,
    recorded_of,
    stored,
    texts_hash,
)

CONFIG = {"study": "example", "seed": 0, "languages": ["en", "de"]}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    return tmp_path / "runs"


def result(value=1 / 3):
    data = {"profile": (("lang", "layer"), np.full((2, 3), value)), "n": ("lang", np.array([4, 5]))}
    return xr.Dataset(data, {"lang": ["en", "de"], "layer": [0, 2, 5]}, {"note": "kept"})


def never():
    raise AssertionError("computed although it was recorded")


def test_it_is_computed_once_and_then_read(runs):
    first = stored(CONFIG, "data", result, "mechanism notebooks --only 10")
    again = stored(CONFIG, "data", never)
    xr.testing.assert_identical(first, again)
    assert first["profile"].values == pytest.approx(1 / 3)
    assert first["n"].values.tolist() == [4, 5]
    assert list(first["layer"].values) == [0, 2, 5]
    assert (first.attrs["note"], first.attrs["command"]) == ("kept", "mechanism notebooks --only 10")
    assert first.attrs["seconds"] >= 0
    assert [path.name for path in runs.iterdir()] == [address(CONFIG, "data")], "no draft is left"


def test_the_address_follows_configuration_and_data():
    same = {"languages": ("en", "de"), "seed": 0, "study": "example"}
    assert address(CONFIG, "data") == address(same, "data")
    assert address(CONFIG, "data") != address({**CONFIG, "seed": 1}, "data")
    assert address(CONFIG, "data") != address(CONFIG, "other")
    assert recorded(CONFIG, "data") is None


def test_a_failed_computation_leaves_no_record(runs):
    with pytest.raises(ZeroDivisionError):
        stored(CONFIG, "data", lambda: result(1 / 0))
    assert recorded(CONFIG, "data") is None


def test_a_changed_result_is_not_believed(runs):
    stored(CONFIG, "data", result)
    path = runs / address(CONFIG, "data") / "stats.nc"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StudyError, match=r"stats.nc is corrupted.*delete its folder to compute it again"):
        recorded(CONFIG, "data")
    path.unlink()
    with pytest.raises(StudyError, match="is corrupted"):
        stored(CONFIG, "data", never)


@pytest.mark.parametrize("config", [{"seed": 0}, {"study": "x", "seed": np.float32(0)}, {"study": "x", "a": np.nan}])
def test_a_configuration_is_plain_and_named(config):
    with pytest.raises(StudyError, match=r"needs its name|not plain JSON"):
        address(config, "data")


def test_a_disk_that_cannot_be_written_to_is_one_sentence(runs):
    runs.parent.mkdir(exist_ok=True)
    runs.write_text("a file where the folder should be")
    with pytest.raises(StudyError, match="cannot write"):
        stored(CONFIG, "data", result)


def test_records_of_studies_are_no_training_runs(runs):
    stored(CONFIG, "data", result)
    folder = runs / "0123456789ab"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": "main"}))
    assert training_runs.records() == {"main": folder}


def test_of_several_runs_of_a_name_the_one_of_the_committed_configuration_counts(runs):
    current = training_runs.find_run("seed0").hash
    for name in (current, "0" * 12, "f" * 12):
        (runs / name).mkdir(parents=True)
        (runs / name / "config.json").write_text(json.dumps({"name": "seed0"}))
    assert training_runs.records() == {"seed0": runs / current}
    (runs / current / "config.json").unlink()
    assert training_runs.records() == {"seed0": runs / ("f" * 12)}, "none is of the configuration: the last by hash"


def corpus(*texts, group="a"):
    rows = [Segment(str(i), group, "test") for i in range(len(texts))]
    return Corpus("own", "own", rows, {"en": list(texts), "de": ["x"] * len(texts)})


def test_the_hash_of_texts_sees_every_text_row_and_corpus():
    found = texts_hash([corpus("a", "b")])
    assert found == texts_hash([corpus("a", "b")])
    others = [[corpus("ab", "")], [corpus("a", "b", group="z")], [corpus("b", "a")], [corpus("a", "b")] * 2]
    assert len({found, *map(texts_hash, others)}) == 5


def test_only_a_model_of_the_report_is_held_against_its_training_seeds(tmp_path):
    """A model from elsewhere reads the same texts under the same settings, and its claims are its own."""
    for run in ("main", "seed0", "seed1", "control", "foreign"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "config.json").write_text("{}")
        if run != "foreign":
            (tmp_path / run / "card.json").write_text(json.dumps({"name": run}))
    key = CONFIG | {"model": "its hash"}
    stored(key | {"model": "another"}, "data", lambda: result().assign_attrs(name="seed1"))
    names = {run: other_seeds(str(tmp_path / run)) for run in ("main", "seed0", "seed1", "control", "foreign")}
    assert names["main"] == names["seed0"] == ["seed1", "seed2"]
    assert names["seed1"] == ["embedded", "seed2"]
    assert names["control"] == names["foreign"] == []
    assert list(recorded_of(str(tmp_path / "main"), key, "data")) == ["seed1"]
    assert recorded_of(str(tmp_path / "foreign"), key, "data") == {}
