"""What the recorded study says on each claim is what the verdicts of the report rest on."""

import pytest
import xarray as xr

from mechanism.corpus.library import DATA
from mechanism.measure.evidence import Evidence
from mechanism.models.load import load_model
from mechanism.report.record import read_records
from mechanism.study.r_multilingual import claims as language_claims
from mechanism.study.r_multilingual.claims import claims
from mechanism.study.r_multilingual.routing import study
from mechanism.study.r_multilingual.tables import COLUMNS, table

KEPT: dict[str, xr.Dataset] = {}
CLAIMS = ("R1", "R2", "R3", "R4", "R5", "R9", "R10", "R11", "R12")


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    return study(*load_model("tiny", "cpu"), "embedded")  # the record is read, so that any model will do


def test_the_recorded_study_is_found_and_awaits_nothing(found: xr.Dataset):
    assert found.attrs["record"] == "c76048557c7c"
    assert (found.attrs["run"], found.attrs["awaits"]) == ("main", "")


def test_claims_are_those_of_the_verdicts(found: xr.Dataset):
    own, records = claims(found), read_records(DATA / "results")
    assert set(own) == set(CLAIMS)
    for claim, evidence in own.items():
        assert isinstance(evidence, Evidence)
        told = evidence.checked()
        for name, value in told.plain().items():
            assert records[claim][name] == (value if value is None else pytest.approx(value, rel=1e-9)), claim
        assert told.note == records[claim]["note"]


def test_of_a_model_without_siblings_some_claims_cannot_be_judged(found: xr.Dataset):
    own = claims(found.assign_attrs(run=""))
    assert {claim for claim, evidence in own.items() if isinstance(evidence, str)} == {"R10", "R12"}
    assert "this model has none here" in str(own["R12"])
    assert {own[claim].n for claim in ("R1", "R3")} == {18}, "languages are the units"  # type: ignore[union-attr]


def test_seeds_are_the_units_of_claims_about_models(found: xr.Dataset):
    own = claims(found)
    assert {claim for claim, evidence in own.items() if getattr(evidence, "n", 0) == 3} >= {
        "R1",
        "R2",
        "R3",
        "R9",
        "R10",
    }


def test_records_of_three_seeds_are_taken_in_once_they_are_there(found: xr.Dataset, monkeypatch):
    for name in ("seed0", "seed1", "seed2"):
        other = found.assign_attrs(run=name).copy(deep=True)
        other["overlap"].loc[{"overlap_of": "shared"}] += int(name[-1])
        monkeypatch.setitem(KEPT, name, other)
    monkeypatch.setattr(language_claims, "kept_studies", lambda: KEPT)
    own = claims(found)["R5"]
    assert isinstance(own, Evidence)
    assert own.n == 3
    assert own.estimate > claims(found.assign_attrs(run=""))["R5"].estimate  # type: ignore[union-attr]


def test_every_table_is_read_as_it_was_recorded(found: xr.Dataset):
    tables = {name: table(found, name) for name in COLUMNS}
    assert set(COLUMNS) <= set(found.data_vars)
    assert tables["language"].index.names == ["corpus", "lang"]
    assert {"value", "low", "high", "n"} <= set(tables["profile"])
    assert tables["profile"]["value"].notna().all()
    assert "en" not in tables["falls"].index.get_level_values("lang")
