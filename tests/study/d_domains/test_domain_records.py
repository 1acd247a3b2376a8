import json

import numpy as np
import pytest
import xarray as xr

from mechanism.models import load as models
from mechanism.models.load import load_model
from mechanism.study.base import records
from mechanism.study.base import runs as training_runs
from mechanism.study.base.records import stored
from mechanism.study.d_domains import domain_experts
from mechanism.study.d_domains.domain_experts import DomainConfig, others, study, to_make

CONFIG = DomainConfig(("religion", "tech"), ("en", "de"), max_segments=4)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path)
    monkeypatch.setattr(domain_experts, "FULL", 6)
    return load_model("tiny", "cpu")


def test_the_full_profile_is_computed_once_and_then_preferred(tiny, tmp_path, monkeypatch):
    (model, tokenizer), crossed = tiny, ("religion", "tech")
    sample = study(model, tokenizer, "tiny", "float32", "auto", CONFIG, crossed)
    assert (sample.record, len(sample.documents.domain)) == ("", 8)
    full = study(model, tokenizer, "tiny", "float32", "full", CONFIG, crossed)
    assert len(full.documents.domain) == 12
    assert full.crossed is not None
    assert full.crossed.sizes["document"] == 12
    made = [json.loads((folder / "result.json").read_text())["command"] for folder in tmp_path.iterdir()]
    assert made == ["mechanism notebooks --only 20_domain_experts -p profile=full -p model=tiny"] * 2

    def refused(*given):
        raise AssertionError("what is recorded is computed again")

    monkeypatch.setattr(domain_experts, "observe", refused)
    monkeypatch.setattr(domain_experts, "observe_crossed", refused)
    again = study(model, tokenizer, "tiny", "float32", "auto", CONFIG, crossed)
    assert again.record == full.record
    for name in ("selections", "weight", "activity", "peak", "tokens", "domain"):
        np.testing.assert_array_equal(getattr(again.documents, name), getattr(full.documents, name))
    assert again.documents.layers == full.documents.layers == (0, 1, 2, 3)
    assert again.crossed is not None
    xr.testing.assert_equal(again.crossed, full.crossed)


def test_other_models_are_known_by_their_records(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(records, "training_run", lambda spec: "main")
    model, tokenizer = tiny
    full = study(model, tokenizer, "tiny", "float32", "full", CONFIG, ())
    assert full.crossed is None
    assert others("tiny", "float32", CONFIG) == {}
    (folder,) = tmp_path.iterdir()
    found = xr.load_dataset(folder / "stats.nc")
    payload = json.loads((folder / "config.json").read_text("utf-8"))
    key = {name: value for name, value in payload.items() if name != "data"}

    def keep(name: str, **changed) -> None:
        stored(key | {"model": name} | changed, payload["data"], lambda: found.assign_attrs(name=name))

    keep("olmoe")
    keep("seed1")
    keep("seed2", domains=["religion", "code"])
    assert list(others("tiny", "float32", CONFIG)) == ["seed1"], "neither other models nor other domains"
    assert (others("tiny", "float32", CONFIG)["seed1"].documents.tokens == full.documents.tokens).all()


def test_the_step_that_a_seed_lacks_is_told(tiny, tmp_path, monkeypatch):
    """The embedded model has weights, seed 2 a training record alone, seed 1 nothing."""
    monkeypatch.setattr(models, "MODELS", tmp_path / "models")
    monkeypatch.setattr(records, "training_run", {"embedded": "main", "seed1": "seed1"}.get)
    monkeypatch.setattr(domain_experts, "model_hash", lambda spec: spec)
    (tmp_path / "models" / "embedded").mkdir(parents=True)
    (tmp_path / "models" / "embedded" / "config.json").write_text("{}")
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "config.json").write_text(json.dumps({"name": "seed2"}))
    record = "`mechanism notebooks --only 20_domain_experts -p profile=full -p model={0}` makes its record of this page"
    training = "`mechanism train --config {0} --export {0}` makes them, then "
    (first, second), (third, _) = (to_make(spec, "float32", DomainConfig()) for spec in ("seed1", "embedded"))
    assert first.startswith("embedded is trained and its weights are here: " + record.format("embedded"))
    assert second.startswith("seed2 is trained, but its weights were not kept: " + (training + record).format("seed2"))
    assert third.startswith("seed1 is not trained yet: " + (training + record).format("seed1"))
    assert to_make("olmoe", "float32", DomainConfig()) == [], "it has no seeds here"
    assert to_make("seed1", "float32", CONFIG) == []


def test_an_unknown_profile_is_refused(tiny):
    model, tokenizer = tiny
    with pytest.raises(ValueError, match="no profile 'large': use auto, small, full"):
        study(model, tokenizer, "tiny", "float32", "large", CONFIG)
