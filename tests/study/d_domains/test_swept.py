"""Tables of a sweep on planted effects: whose drivers they are, and what a metric that counts use can tell."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from mechanism.measure.seeds import over_seeds
from mechanism.study.d_domains.driver_experts import Swept
from mechanism.study.d_domains.tables import driver_overlap, overlapping

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
    assert GERMAN in members(swept.is_driver)
    assert ENGLISH in members(swept.common_drivers)
    assert swept.is_driver.sum(1).tolist() == swept.common_drivers.sum(1).tolist() == [1, 1]


def test_drivers_stand_in_every_layer_and_tell_how_often_documents_include_them():
    table = planted().drivers().set_index(["layer", "expert"])
    assert table.index[0] == GERMAN
    assert sorted(table.index.get_level_values("layer")) == [0, 1]
    assert table.loc[GERMAN, "included"] == 1
    assert table["included"].max() <= 1
    assert table["share"].between(0, 1).all()
    assert planted().drivers(3)["layer"].tolist()[0] == GERMAN[0]


def test_other_analyses_hold_the_one_that_is_judged_and_see_each_domain_alone():
    swept = planted()
    cells = {tuple(own.choices.values()): own.evidence for own in swept.cells((0.025, 0.2))}
    assert len(cells) == 2 * 2 * 3, "two shares, two ways to count tokens, all text or that of one of two domains"
    judged = over_seeds([swept.concentrated("zero")]).against(swept.busiest)
    assert cells["zero", "all", "2%", "all"] == judged
    (y,) = np.unique(np.flatnonzero(swept.domains()["y"])[[0]])
    assert swept.labels("domain")[y] == "y"
    assert cells["zero", "y", "2%", "all"].estimate < cells["zero", "x", "2%", "all"].estimate, "no German in y"


def test_a_domain_of_one_document_is_no_text_of_its_own():
    swept = planted()
    found = swept.found.assign(
        document=("sequence", np.where(swept.labels("domain") == "y", "0", swept.labels("document")))
    )
    assert list(Swept(found).domains()) == ["all", "x"]


def test_a_layer_that_does_more_has_no_more_drivers():
    swept = planted()
    deep = swept.found.copy(deep=True)
    deep["kl"][:, :, 1] *= 1000
    assert Swept(deep, share=0.025).is_driver.tolist() == swept.is_driver.tolist()


def test_overlap_is_of_drivers_on_the_text_of_domain_experts():
    table = driver_overlap([planted()])
    assert table is not None
    assert table["drivers"].tolist() == ["on text in en"] * 3 + ["on all text"]
    assert table["share"].tolist() == [0.025, 0.125, 0.25, 0.025]
    assert table["n"].tolist() == [1] * 4


@pytest.mark.parametrize("same", [False, True])
def test_an_overlap_that_is_planted_is_found_and_one_that_is_not_is_bounded(same: bool):
    """Of sixty layers' drivers, all are the experts of a domain, or none."""
    swept = planted()
    kl, selections = (np.concatenate([swept.found[name].values] * 30, -2) for name in ("kl", "selections"))
    kl[..., DOMAIN[1] if same else ENGLISH[1]] = 500.0
    selections[..., DOMAIN[1]] = np.where(swept.labels("domain") == "y", TOKENS, 0)[:, None]
    full = ("mode", "sequence", "layer", "expert")
    found = swept.found.drop_dims("layer").assign({"kl": (full, kl), "selections": (full[1:], selections)})
    found = found.assign(cheap_peak=(full[2:], np.ones(kl.shape[2:])), forming=("layer", np.zeros(60, bool)))
    own = over_seeds([overlapping(Swept(found, share=0.025, n_boot=100, n_perm=50))])
    assert own.estimate == float(same)
    assert own.low > 0.9 if same else own.high < 0.1


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
