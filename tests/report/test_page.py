"""What pages open with: the model, its provenance, and which profile its claims are judged on."""

import pytest
from matplotlib import pyplot as plt

from mechanism.models.errors import ModelError
from mechanism.report.page import figures, open_page, profile_text


def test_a_page_states_its_model_and_settings():
    with plt.rc_context():
        page = open_page("tiny", "cpu", "float32", seed=3, max_segments=5, data=None)
        assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(figures.PALETTE)
    assert (page.run, page.loaded.config.model_type) == ("tiny", "qwen3_moe")
    content = page.provenance(judged_on="abc").content
    stated = {"model": "tiny", "run": "tiny", "seed": "3", "dtype": "float32", "max segments": "5", "judged on": "abc"}
    assert stated.items() <= content.items()
    assert page.provenance(seed=4).content["seed"] == "4"


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match="no model"):
        open_page(str(tmp_path), "cpu", "float32")


def test_the_profile_that_is_judged_on_and_the_command_that_makes_it():
    recorded = {"record": "abc", "seconds": 12.4, "command": "mechanism sweep tiny"}
    assert profile_text(recorded, "").data == (
        "Judged on the full profile: run `abc`, 12 s, made again by `mechanism sweep tiny`."
    )
    assert profile_text({"seconds": 1.0}, "mechanism full").data.endswith(
        "`mechanism full` makes and records the full one."
    )
