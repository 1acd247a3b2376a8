"""Metrics that do, and do not, foretell which of a token's experts matters."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import xarray as xr

from mechanism.measure.causal import Effects
from mechanism.measure.seeds import over_seeds
from mechanism.study.d_domains.driver_experts import Swept
from mechanism.study.d_domains.foretold import OWN, Foretold, by_kind, cells

PROBES, LAYERS, EXPERTS = 600, 3, 8


@dataclass(frozen=True, eq=False)
class Made(Swept):
    """A sweep of which only metrics and documents are there."""

    table: dict[str, np.ndarray] = field(default_factory=dict)
    effects_made: Effects | None = None

    def metrics(self) -> dict[str, np.ndarray]:
        return self.table

    def kl(self, mode: str, kept: np.ndarray | None = None) -> Effects:
        assert self.effects_made is not None
        return self.effects_made


def planted(pull: float, layer: int = 1, seed: int = 0) -> tuple[Swept, xr.Dataset]:
    """Tokens with two experts each. In one layer the first metric pulls the effect of an expert, in units of noise; the
    second metric is as good as drawn, and the gate weight at the token decides everywhere."""
    rng = np.random.default_rng(seed)
    metric = {"activation rate": rng.uniform(size=(LAYERS, EXPERTS)), "CWAS": rng.uniform(size=(LAYERS, EXPERTS))}
    expert = np.argsort(rng.random((PROBES, LAYERS, EXPERTS)))[..., :2]
    weight, effect = rng.uniform(size=expert.shape), rng.normal(size=expert.shape)
    first = metric["activation rate"][np.arange(LAYERS)[:, None], expert]
    effect[:, layer] += pull * (first == first.max(-1, keepdims=True))[:, layer]
    dims = ("probe", "layer", "slot")
    data: dict[str, tuple] = {
        "expert": (dims, expert),
        "weight": (dims, weight),
        "size": (dims, weight),
        "kl": (dims, effect + 3 * weight),
    }
    data |= {"later": (dims, effect), "sequence": ("probe", np.arange(PROBES) // 2)}
    text = xr.Dataset({f"probe_{name}": values for name, values in data.items()})
    sequences = PROBES // 2
    one, documents = np.array(["x"] * sequences), np.arange(sequences).astype(str)
    effects = Effects(np.ones((sequences, 1, 1)), np.ones(sequences), one, one, documents)
    found = xr.Dataset({"tokens": ("sequence", np.ones(sequences))}, {"layer": np.arange(LAYERS)})
    return Made(found, n_boot=100, table=metric, effects_made=effects), text


def test_a_metric_that_tells_is_found_in_its_layer():
    own = Foretold(*planted(1.0), "at the tokens that follow")
    found = over_seeds([own.best()])
    assert found.estimate == pytest.approx(1 / np.sqrt(2), abs=0.15), "a shift of one in a difference of two noises"
    assert found.low > 0.4
    assert np.abs(own.d()[0]).argmax() == 1
    assert (own.kinds[list(OWN.values())] == "the token itself").all()


def test_metrics_that_do_not_tell_have_nothing_though_the_best_was_chosen():
    own = Foretold(*planted(0.0), "at the tokens that follow")
    found = over_seeds([own.best()])
    assert abs(found.estimate) < 0.1
    assert found.high < 0.23, "the bound of the claim is within reach of so many tokens"


def test_the_control_fires_where_the_token_itself_tells():
    table = by_kind([planted(0.0)]).set_index(["effect", "metrics"])
    assert table.loc[("at the token", "the token itself"), "low"] > 0.5
    assert table.loc[("at the tokens that follow", "the token itself"), "high"] < 0.3


def test_other_analyses_hold_the_one_that_is_judged(monkeypatch):
    swept, text = planted(1.0)
    first = np.arange(PROBES // 2) < PROBES // 4
    monkeypatch.setattr(Made, "domains", lambda self: {"all": np.ones(PROBES // 2, bool), "x": first})
    found = {tuple(own.choices.values()): own for own in cells(swept, text)}
    assert len(found) == 3 * 1 * 2 * 2, "effects, kinds of metrics, texts, bounds"
    own = found["at the token", "routing", "all", "0.23 (v2)"]
    assert own.evidence == over_seeds([Foretold(swept, text).best()])
    assert (own.smallest, found["at the token", "routing", "all", "0.17 (v1)"].smallest) == (0.23, 0.17)
    half = found["at the tokens that follow", "routing", "x", "0.23 (v2)"].evidence
    assert half.estimate == pytest.approx(1 / np.sqrt(2), abs=0.2)
    assert half != found["at the tokens that follow", "routing", "all", "0.23 (v2)"].evidence


def test_a_token_with_one_expert_or_equal_metrics_has_no_difference():
    swept, text = planted(1.0)
    text["probe_expert"][:10, :, 1] = -1
    swept.metrics()["CWAS"][:] = 0.5
    found = Foretold(swept, text).differences
    assert np.isnan(found[0, :10]).all()
    assert not np.isnan(found[0, 10:]).any()
    assert np.isnan(found[1]).all()
    assert (Foretold(swept, text).d()[1] == 0).all()
