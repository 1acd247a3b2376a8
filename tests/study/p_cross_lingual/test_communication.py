"""Routed tokens are what the trace shows, and placements are compared on them."""

import json

import numpy as np
import pytest
import xarray as xr
from torch import nn

from mechanism.corpus.library import committed
from mechanism.models.load import load_model
from mechanism.models.passes import RoutedTokens
from mechanism.models.segments import segment_pass
from mechanism.study.base import records
from mechanism.study.base import runs as training_runs
from mechanism.study.base.records import stored
from mechanism.study.base.texts import RoutingConfig
from mechanism.study.p_cross_lingual import communication
from mechanism.study.p_cross_lingual.communication import (
    PlacementConfig,
    RoutedText,
    at_devices,
    by_devices,
    compare_placements,
    route_text,
    study,
)
from mechanism.trace.sites import Site


def test_routed_tokens_are_those_that_a_pass_counts():
    model, tokenizer = load_model("tiny", "cpu")
    corpus = committed("tech")
    found = route_text(model, tokenizer, corpus, ("en", "de"), RoutingConfig(max_segments=10))
    rows = RoutingConfig(max_segments=10).rows(corpus)
    counted = segment_pass(model, tokenizer, corpus.texts("en", rows), hidden=False).selections.sum(0)
    own = found.lang[found.tokens.sequence] == 0
    layers = [
        np.bincount(found.tokens.index[own, layer].ravel(), minlength=8) for layer in range(len(found.tokens.layers))
    ]
    np.testing.assert_array_equal(np.stack(layers), counted)
    table = by_devices(compare_placements(found, found, {"en": 0.8, "de": 0.2}))
    assert table["devices"].tolist() == [2, 4, 8, 16, 32]
    assert (table["fall"] > 0).all()


def planted(seed):
    """Four languages with two experts of their own each, interleaved."""
    lang = np.repeat(np.arange(4), 30)
    index = np.stack([lang, lang + 4], -1)[:, None]
    one, place = np.arange(120), np.zeros(120, int)
    none = nn.Identity()
    site = Site(0, none, "", none, "", none, "standard", 8, 8, num_experts=8, top_k=2)
    tokens = RoutedTokens(one, place, place + 1, place, index, np.empty((120, 0, 0)), [site], 120)
    return RoutedText(tokens, lang, one // 3, 16, ("a", "b", "c", "d"))


def test_pinning_languages_with_experts_of_their_own_ends_communication():
    shares = dict.fromkeys("abcd", 0.25)
    row = by_devices(compare_placements(planted(0), planted(1), shares)).set_index("devices").loc[4]
    assert row["fall"] == row["low"] == row["high"] == 1
    assert row["load pinned"] == pytest.approx(1)


def fallen(*falls):
    """Falls at 4, 8 and 16 devices, with draws up to 0.02 around them."""
    draws = np.linspace(-0.02, 0.02, 101)[None] + np.array(falls)[:, None]
    return xr.Dataset(
        {
            "fall": ("devices", list(falls)),
            "draws": (("devices", "draw"), draws),
            "documents": ("document", list("abc")),
        },
        {"devices": [4, 8, 16]},
    )


def test_the_claim_is_judged_at_eight_devices_and_held_against_the_worst_of_the_others():
    found = at_devices([fallen(0.3, 0.25, 0.1)])
    assert not isinstance(found, str)
    assert found[:4] == pytest.approx((0.25, 0.231, 0.269, 1))
    assert found.null == pytest.approx(0.081)
    assert found.note == "lowest over 16 devices: 0.10 [0.08, 0.12]"
    assert at_devices([fallen(0.3, 0.25, 0.1)], 32) == "experts cannot be shared out over 32 devices"
    over = at_devices([fallen(0.3, 0.25, 0.1), fallen(0.3, 0.15, 0.1), fallen(0.3, 0.2, 0.1)])
    assert not isinstance(over, str)
    assert over.n == 3
    assert over.estimate == pytest.approx(0.2)
    assert over.low < 0.1, "three seeds are few"


def test_seeds_take_part_where_they_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(training_runs, "RUNS", tmp_path)
    monkeypatch.setattr(records, "training_run", lambda spec: "main")
    monkeypatch.setattr(communication, "RoutingConfig", lambda max_segments, split: RoutingConfig(None, 10, split))
    given = (*load_model("tiny", "cpu"), "tiny")
    config = PlacementConfig(languages=("en", "de"), max_segments=10)
    (sample,) = study(*given, config=config)
    (full,) = study(*given, profile="full", config=config)
    assert full.attrs["record"]
    xr.testing.assert_allclose(sample, full)
    key = json.loads((tmp_path / full.attrs["record"] / "config.json").read_text("utf-8"))
    data = key.pop("data")
    stored({**key, "model": "b"}, data, lambda: full.assign_attrs(name="seed1"))
    assert [one.attrs["name"] for one in study(*given, config=config)] == ["tiny", "seed1"]
