"""The text of a sweep: its routing is that of the sweep, and its record is found, of this model and of other seeds."""

import json
from functools import partial

import numpy as np
import pytest

from mechanism.models.load import load_model
from mechanism.study.base import records
from mechanism.study.base import runs as training_runs
from mechanism.study.base.records import stored
from mechanism.study.d_domains import sweep, swept_text
from mechanism.study.d_domains.domain_text import SweepConfig
from mechanism.study.d_domains.driver_tokens import DriverTokens
from mechanism.study.d_domains.foretold import Foretold
from mechanism.study.d_domains.tables import Space

SMALL = SweepConfig(data=("tech", "religion"), languages=("en",), max_segments=6, max_tokens=24, modes=("zero",))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_runs, "RUNS", folder)
        model, tokenizer = load_model("tiny", "cpu")
        swept = sweep.study(model, tokenizer, "tiny", profile="full", config=SMALL)
        text = swept_text.study(model, tokenizer, swept, "tiny", profile="full")
        yield (model, tokenizer), folder, swept, text


def test_the_text_is_routed_as_the_sweep_saw_it(made):
    _, _, swept, text = made
    tokens = DriverTokens(swept, text)
    sequence = text["sequence"].values
    counted = np.stack([tokens.selected[sequence == i].sum(0) for i in range(swept.found.sizes["sequence"])])
    np.testing.assert_array_equal(counted, swept.found["selections"].values)
    assert np.bincount(sequence).tolist() == swept.found["tokens"].values.tolist()
    assert len(Space.of(swept, text["mean_output"].values).points) == (~swept.unused).sum()
    assert Foretold(swept, text).probed


def test_a_sample_has_no_record_and_a_full_one_is_read_again(made, monkeypatch):
    (model, tokenizer), _, swept, text = made
    monkeypatch.setattr(swept_text, "observe", lambda *given: pytest.fail("what is recorded is computed again"))
    again = swept_text.study(model, tokenizer, swept, "tiny")
    assert again.attrs["record"] == text.attrs["record"] != swept.found.attrs["record"]
    assert again.attrs["command"] == "mechanism sweep tiny"


def test_other_training_seeds_are_found_by_their_names(made, monkeypatch):
    monkeypatch.setattr(records, "training_run", lambda spec: "main")
    _, folder, swept, text = made
    assert sweep.others("tiny", config=SMALL) == swept_text.others("tiny", config=SMALL) == {}
    for found, names in ((swept.found, ("seed1", "olmoe")), (text, ("seed1", "seed2"))):
        payload = json.loads((folder / found.attrs["record"] / "config.json").read_text("utf-8"))
        data = payload.pop("data")
        key = {**payload, "data": list(SMALL.data)}
        for name in names:
            stored({**key, "model": name}, data, partial(found.assign_attrs, name=name))
    assert list(sweep.others("tiny", config=SMALL)) == ["seed1"]
    assert sorted(swept_text.others("tiny", config=SMALL)) == ["seed1", "seed2"]
    assert sweep.others("tiny", config=SweepConfig(data=("tech",), languages=("en",))) == {}
