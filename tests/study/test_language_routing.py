from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from mechanism.corpus.library import committed
from mechanism.corpus.store import CorpusError
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.study.language_routing import LanguageProfiles, RoutingConfig, observe, predict_quality, quality
from mechanism.study.models import load_model

PROFILES = LanguageProfiles(ClusterBootstrap(n_boot=200))
CODES = ("en", "de", "km")


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    model, tokenizer = load_model("tiny", "cpu")
    return observe(model, tokenizer, committed("tech"), RoutingConfig(CODES, max_segments=16))


def planted(middle: float, ends: float, langs: int = 6, segments: int = 40) -> xr.Dataset:
    """Languages whose divergence is `middle` in the middle half of eight layers and `ends` elsewhere, with noise; the
    higher a language's middle divergence, the higher its loss."""
    rng = np.random.default_rng(0)
    codes = ["en", *(f"l{i}" for i in range(langs - 1))]
    level = np.full(8, ends)
    level[2:6] = middle
    lift = np.linspace(0, 0.05, langs)[:, None, None]
    divergence = np.clip(level + lift + rng.normal(0, 0.02, (langs, segments, 8)), 0, 1)
    divergence[0] = 0
    nll = 100 * (1 + 10 * lift[:, :, 0]) + rng.normal(0, 1, (langs, segments))
    per_segment = {"nll": nll, "bytes": np.full((langs, segments), 50.0), "tokens": np.full((langs, segments), 20.0)}
    data: dict[str, tuple] = {name: (("lang", "segment"), values) for name, values in per_segment.items()}
    data["divergence"] = (("lang", "segment", "layer"), divergence)
    coords = {"lang": codes, "layer": np.arange(8), "cluster": ("segment", np.arange(segments) // 4)}
    return xr.Dataset(data, coords=coords, attrs={"pivot": "en"})


def test_a_planted_u_is_told_from_its_absence():
    assert PROFILES.u_shaped(planted(middle=0.1, ends=0.3)).all()
    assert not PROFILES.u_shaped(planted(middle=0.3, ends=0.1)).any()
    assert not PROFILES.u_shaped(planted(middle=0.2, ends=0.2)).any()


def test_planted_loss_follows_divergence():
    table = quality(planted(middle=0.1, ends=0.3, langs=10))
    assert len(table) == 9
    found = predict_quality(table)
    assert found["pearson"].high < -0.5
    assert found["spearman"].value < -0.9


def test_observation_of_a_model(found: xr.Dataset):
    assert list(found["lang"].values) == list(CODES)
    assert found.sizes["layer"] == 4
    assert np.allclose(found["importance"].sum("expert").values[:2], 1, atol=1e-4)
    assert (found["divergence"].sel(lang="en") == 0).all()
    assert ((found["divergence"].sel(lang="de") > 0) & (found["divergence"].sel(lang="de") < 1)).all()
    assert ((found["consistency"].sel(lang="de") > 0) & (found["consistency"].sel(lang="de") <= 1)).all()
    assert (found["hits"].sel(lang="en") == 1).all()


def test_missing_segments_are_nan_not_zero(found: xr.Dataset):
    texts = committed("tech").columns["km"]
    missing = found["nll"].sel(lang="km").isnull().values
    assert missing.sum() == sum(not texts[i] for i in RoutingConfig(CODES, max_segments=16).rows(committed("tech")))
    for name in ("divergence", "importance", "consistency", "hits"):
        own = found[name].sel(lang="km").isnull().values.reshape(len(missing), -1)
        assert (own.any(1) == missing).all()


def test_tables_over_the_observation(found: xr.Dataset):
    layers = PROFILES.by_layer(found, "divergence").set_index(["lang", "layer"])
    assert (layers["low"] <= layers["value"]).all()
    table = quality(found)
    assert set(table.index) == {"de", "km"}
    assert (table["relative_loss"] > 1).all()
    assert table.loc["km", "script"] == "Khmr"


def test_too_little_text_and_unknown_languages():
    model, tokenizer = load_model("tiny", "cpu")
    corpus = committed("tech")
    with pytest.raises(CorpusError, match="no language 'xx'"):
        observe(model, tokenizer, corpus, RoutingConfig(("xx",), max_segments=12))
    with pytest.raises(CorpusError, match="needs 10"):
        RoutingConfig(split="dev", max_segments=12).rows(few())


def few():
    corpus = committed("tech")
    kept = corpus.split("dev")[:5]
    columns = {code: [corpus.columns[code][i] for i in kept] for code in ("en", "de")}
    return replace(corpus, name="few", rows=[corpus.rows[i] for i in kept], columns=columns)
