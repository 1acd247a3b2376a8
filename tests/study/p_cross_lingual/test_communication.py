"""Routed tokens are what the trace shows, and placements are compared on them."""

import numpy as np
import pandas as pd
import pytest
from torch import nn

from mechanism.corpus.library import committed
from mechanism.models.load import load_model
from mechanism.models.passes import RoutedTokens
from mechanism.models.segments import segment_pass
from mechanism.study.base.texts import RoutingConfig
from mechanism.study.p_cross_lingual.communication import RoutedText, at_devices, compare_placements, route_text
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
    table = compare_placements(found, found, {"en": 0.8, "de": 0.2})
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
    row = compare_placements(planted(0), planted(1), shares).set_index("devices").loc[4]
    assert row["fall"] == row["low"] == row["high"] == 1
    assert row["load pinned"] == pytest.approx(1)


def test_the_claim_is_judged_at_eight_devices_and_held_against_the_worst_of_the_others():
    rows = {
        "devices": [4, 8, 16],
        "fall": [0.3, 0.25, 0.1],
        "low": [0.28, 0.2, -0.05],
        "high": [0.32, 0.3, 0.2],
        "n": 9,
    }
    found = at_devices(pd.DataFrame(rows))
    assert not isinstance(found, str)
    assert (*found[:4], found.null) == (0.25, 0.2, 0.3, 9, -0.05)
    assert found.note == "lowest over 16 devices: 0.10 [-0.05, 0.20]"
    assert at_devices(pd.DataFrame(rows), 32) == "experts cannot be shared out over 32 devices"
