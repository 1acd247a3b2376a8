"""Tables of a sweep on planted effects: whose drivers they are, and what a metric that counts use can tell."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from mechanism.study.d_domains.driver_experts import Swept
from mechanism.study.d_domains.tables import driver_overlap

LAYERS, EXPERTS, DOCUMENTS, TOKENS = 2, 20, 8, 50
ENGLISH, GERMAN, DOMAIN = (0, 3), (1, 7), (0, 5)


def planted(seed: int = 0) -> Swept:
    """Two domains, one of them in English only. In English an expert drives, in German another and much more so; a
    third serves one domain. Every use of the others has an effect drawn for the expert, however often it is used."""
    rng = np.random.default_rng(seed)
    cells = [("x", "en"), ("x", "de"), ("y", "en")]
    domain, lang = (np.repeat([cell[i] for cell in cells], DOCUMENTS) for i in (0, 1))
    document = np.tile(np.arange(DOCUMENTS), len(cells)).astype(str)
    shape = (len(domain), LAYERS, EXPERTS)
    often = rng.uniform(0.02, 0.4, shape[1:])
    often[ENGLISH] = often[GERMAN] = 0.2
    selections = rng.binomial(TOKENS, np.broadcast_to(often, shape)).astype(np.int64)
    selections[(slice(None), *DOMAIN)] = np.where(domain == "y", TOKENS, 0)
    kl = selections * rng.uniform(0.01, 0.02, shape[1:])
    kl[(lang == "en", *ENGLISH)] = 200.0
    kl[(lang == "de", *GERMAN)] = 2000.0
    full = ("mode", "sequence", "layer", "expert")
    data: dict[str, Any] = dict.fromkeys(("kl", "own", "loss"), (full, kl[None]))
    data["selections"] = (full[1:], selections)
    data |= {name: ("sequence", np.full(len(domain), TOKENS)) for name in ("tokens", "targets")}
    data |= {"domain": ("sequence", domain), "lang": ("sequence", lang), "document": ("sequence", document)}
    rate = selections.mean(0) / TOKENS
    for name in ("selections", "weight", "probability", "entropy", "peak"):
        data[f"cheap_{name}"] = (full[2:], rate * rng.uniform(0.9, 1.1, rate.shape))
    data["forming"] = ("layer", np.zeros(LAYERS, bool))
    coords = {"mode": ["zero"], "layer": np.arange(LAYERS), "expert": np.arange(EXPERTS)}
    return Swept(xr.Dataset(data, coords), share=0.025, n_boot=20, n_perm=100)


def members(chosen: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(map(int, one)) for one in np.argwhere(chosen)]


def test_drivers_of_a_language_are_not_those_of_all_text():
    swept = planted()
    assert members(swept.is_driver) == [GERMAN]
    assert members(swept.common_drivers) == [ENGLISH]


def test_overlap_is_of_drivers_on_the_text_of_domain_experts():
    swept = planted()
    table = driver_overlap(swept)
    assert table is not None
    assert table["drivers"].tolist() == ["on text in en"] * 3 + ["on all text"]
    assert table["experts"].tolist() == [2, 4, 8, 1]
    assert table["share"].tolist() == [0.05, 0.1, 0.2, 0.025]
    assert table["shared"].iloc[-1] == 0


def test_a_domain_in_more_languages_counts_once():
    swept = planted()
    by_domain, by_cell = swept.effect, Swept(swept.found, by="cell").effect
    assert by_domain[ENGLISH] == pytest.approx((2.0 + 4.0) / 2, rel=1e-3)
    assert by_cell[ENGLISH] == pytest.approx((4.0 + 0 + 4.0) / 3, rel=1e-3)


def test_counts_of_use_tell_the_sum_of_an_effect_and_not_the_effect_of_a_use():
    swept = planted()
    np.testing.assert_allclose(swept.per_use * swept.rate, swept.effect)
    row = swept.predictions().loc["activation rate"]
    assert row["estimate"] > 0.6
    assert abs(row["per use"]) < 0.4
    assert row["per use, low"] <= row["per use"] <= row["per use, high"]
