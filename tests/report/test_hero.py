"""The front page's figure says what its lines show, and which model and how much training they are of."""

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from mechanism.report import hero as room
from mechanism.report.figures import png
from mechanism.report.hero import card, divergence_profile, hero
from mechanism.study.base import runs as training_runs
from mechanism.study.embedded import history as records
from mechanism.study.embedded.history import History
from tests.study.clones.planted import planned, plant

mpl.use("Agg")
LANGUAGES = ["en", "de", "ru", "sw"]


def history(profile: np.ndarray, finished: bool = True) -> History:
    """A record whose last probe has the profile for every language but English and Swahili, which is far everywhere."""
    values = np.zeros((2, 1, 4, 3, len(profile)))
    values[-1, 0, 1:3] = profile
    values[-1, 0, 3] = 0.9
    dims = ("tokens_seen", "corpus", "lang", "segment", "layer")
    coords = {"tokens_seen": [0, 4_000_000], "corpus": ["udhr"], "lang": LANGUAGES}
    stats = xr.Dataset({"divergence": (dims, values)}, coords)
    config = {"train": {"tokens": 40_000_000}}
    return History("main", "abc", {"finished": finished}, config, pd.DataFrame(), stats)


@pytest.mark.parametrize(
    ("profile", "shape"),
    [([0.6, 0.5, 0.1, 0.1, 0.3, 0.6], "is closer to"), ([0.1, 0.2, 0.5, 0.5, 0.2, 0.1], "is not closer")],
)
def test_caption_states_what_the_lines_show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: list[float], shape: str
):
    monkeypatch.setattr(room, "load_history", lambda name: history(np.array(profile)))
    monkeypatch.setattr(room, "load_grid", lambda name: planned(tmp_path))
    made = hero()
    assert shape in made.caption
    assert f"{profile[0]:.2f} at first, {profile[2]:.2f} there" in made.caption
    assert "4.0 of 40 million" in made.caption
    assert "at the end of its training" in made.caption
    assert "3 languages" in made.alt
    legend = made.figure.axes[0].get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["Latin script", "other scripts", "never trained on"]
    plt.close("all")


def test_an_unfinished_record_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "load_history", lambda name: history(np.ones(6), finished=False))
    assert "the embedded model (run `abc`) in training" in hero().caption
    plt.close("all")


def test_clones_stand_beside_natural_languages_once_all_their_runs_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(room, "load_history", lambda name: history(np.ones(6)))
    grid = planned(tmp_path)
    *some, last = grid.runs("base")
    for run in some:
        plant(run, 0.4)
    assert len(hero(str(tmp_path / "planted.yaml")).figure.axes) == 1
    plant(last, 0.4)
    made = hero(str(tmp_path / "planted.yaml"))
    natural, clones = made.figure.axes
    assert [axis.get_title() for axis in (natural, clones)] == ["natural languages", "clones of English"]
    found = re.search(r"5 learnt clones and 3 models\): (0.\d\d) at first, (0.\d\d) in the middle", made.caption)
    assert found is not None
    assert float(found[2]) == pytest.approx(0.6 * float(found[1]), abs=0.01)
    (null,) = (line for line in clones.get_lines() if line.get_label() == "other text")
    assert np.asarray(null.get_ydata(), float)[2] == pytest.approx(float(found[1]), abs=0.02), "other texts do not dip"
    plt.close("all")


def test_no_record_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "records", dict)
    with pytest.raises(FileNotFoundError, match="no record of run 'main'"):
        hero()


def test_profile_leaves_out_english_and_languages_without_the_text():
    found = history(np.ones(6))
    found.stats["divergence"][:, :, 1] = np.nan
    assert list(divergence_profile(found).index) == ["ru", "sw"]


def test_card_has_the_size_that_previews_want():
    image = card(
        {"replicated": 2, "partly": 1, "refuted": 1, "inconclusive": 2, "not testable here": 0, "undecided": 3}, 4
    )
    assert (int.from_bytes(image[16:20]), int.from_bytes(image[20:24])) == (1200, 630)
    assert len(image) < 60_000
    assert not plt.get_fignums()


def test_small_images_are_small_and_the_same_twice():
    figure, axis = plt.subplots()
    axis.plot([0, 1, 0.5])
    assert png(figure) == png(figure)
    plt.close("all")
