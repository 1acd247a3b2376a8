"""One protocol for records and samples: what each profile computes, reads and keeps."""

from dataclasses import dataclass

import pytest
import xarray as xr

from mechanism.study.base import runs
from mechanism.study.base.study import Study, plain


@pytest.fixture
def study(tmp_path, monkeypatch) -> tuple[Study, list[str]]:
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    done: list[str] = []

    def compute(what: str) -> xr.Dataset:
        done.append(what)
        return xr.Dataset({"x": ("i", [1.0, 2.0] if what == "full" else [1.0])})

    made = Study({"study": "toy", "size": 2}, "texts", lambda: compute("full"), lambda: compute("sample"), "make it")
    return made, done


def test_without_a_record_auto_and_small_compute_the_sample(study):
    made, done = study
    for profile in ("auto", "small"):
        found = made.result(profile)
        assert found.sizes["i"] == 1
        assert made.awaits(found) == "make it"
    assert done == ["sample", "sample"]


def test_full_records_once_and_auto_reads_it_while_small_does_not(study):
    made, done = study
    first, again = made.result("full"), made.result("full")
    assert done == ["full"]
    assert first.equals(again)
    assert made.result("auto").attrs["record"] == again.attrs["record"]
    assert made.awaits(again) == ""
    assert made.result("small").sizes["i"] == 1
    assert done == ["full", "sample"]


def test_another_text_or_setting_has_another_record(study):
    made, _ = study
    made.result("full")
    for other in (Study({**made.key, "size": 3}, "texts", made.full, made.sample),
                  Study(made.key, "other texts", made.full, made.sample)):  # fmt: skip
        assert other.recorded() is None
    assert made.recorded() is not None


def test_an_unknown_profile_is_refused_before_anything_runs(study):
    made, done = study
    with pytest.raises(ValueError, match="no profile 'tiny': use auto, small, full"):
        made.result("tiny")
    assert done == []


def test_a_configuration_is_plain_json():
    @dataclass(frozen=True)
    class Inner:
        layers: tuple[int, ...] = (1, 2)

    @dataclass(frozen=True)
    class Outer:
        inner: Inner = Inner()
        names: tuple[tuple[str, ...], ...] = (("a",), ())
        size: int | None = None

    assert plain(Outer()) == {"inner": {"layers": [1, 2]}, "names": [["a"], []], "size": None}
