"""Routed experts from serving engines: planted arrays whose counts are known, and arrays that are refused."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechanism.trace import CaptureError, RoutingStats, Served, attach, decode_routed_experts
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import EXPERTS, VOCAB

QWEN = Served("qwen@1", "vllm 0.21", experts=4, layers=2)
IDS = np.array([[[0, 1], [2, 3]], [[1, 0], [3, 2]], [[0, 3], [1, 2]]], dtype=np.int16)


def count(ids: Any = IDS, served: Served = QWEN, groups: tuple[str, ...] = ("all",), **options: Any) -> RoutingStats:
    return served.count(RoutingStats(groups), ids, **{"phase": "prefill", **options})


def selections(stats: RoutingStats, phase: int = 0, group: int = 0) -> list[list[int]]:
    return stats.sums["selections"][phase, group].tolist()


def test_planted_selections_are_counted():
    stats = count()
    assert stats.layers == (0, 1)
    assert selections(stats) == [[3, 2, 0, 1], [0, 1, 3, 2]]
    assert stats.tokens[0, 0].tolist() == [3, 3]
    rate = stats.dataset()["activation_rate"].sel(phase="prefill", group="all", layer=0)
    assert rate.values == pytest.approx([1, 2 / 3, 0, 1 / 3])


def test_what_ids_do_not_tell_is_nan_and_never_zero():
    data = count().dataset()
    for name in ("probability", "probability_std", "entropy", "weight"):
        assert np.isnan(data[name]).all(), name
    assert set(count().sums) == {"selections"}
    data = count(weights=np.full(IDS.shape, 0.25)).dataset()
    assert np.isnan(data["probability"]).all()
    weight = data["weight"].sel(phase="prefill", group="all", layer=0).values
    assert weight == pytest.approx([0.25, 0.25, np.nan, 0.25], nan_ok=True)


def test_weights_are_averaged_over_the_tokens_that_selected_the_expert():
    weights = np.array([[[0.75, 0.25], [1, 0]], [[0.5, 0.5], [1, 0]], [[0.25, 0.75], [1, 0]]])
    weight = count(weights=weights).dataset()["weight"].sel(phase="prefill", group="all")
    assert weight.sel(layer=0).values == pytest.approx([0.5, 0.375, np.nan, 0.75], nan_ok=True)
    assert weight.sel(layer=1).values == pytest.approx([np.nan, 1, 1 / 3, 0.5], nan_ok=True)


def test_prompt_and_generation_are_told_apart():
    stats = count(phase=None, prompt_tokens=2)
    assert stats.tokens[:, 0, 0].tolist() == [2, 1]
    assert selections(stats, phase=1) == [[1, 0, 0, 1], [0, 1, 1, 0]]
    assert np.isnan(count().dataset()["activation_rate"].sel(phase="decode")).all()


def test_masked_tokens_are_not_counted_whatever_they_hold():
    ids = IDS.copy()
    ids[1] = -7
    assert selections(count(ids, mask=[True, False, True])) == [[2, 1, 0, 1], [0, 1, 2, 1]]


def test_groups():
    stats = RoutingStats(("en", "de"))
    QWEN.count(stats, IDS[:2], phase="prefill", group="en")
    QWEN.count(stats, IDS[2:], phase="prefill", group="de")
    QWEN.count(stats, IDS[:1], phase="prefill", group="de")
    assert stats.tokens[0, :, 0].tolist() == [2, 2]
    assert selections(stats, group=1) == [[2, 1, 0, 1], [0, 1, 2, 1]]


def test_unfilled_slots_and_dense_layers_are_told_apart():
    served = Served("deepseek@1", "sglang 0.5", experts=4, layers=3, fill=255)
    ids = np.concatenate([np.full((3, 1, 2), 255), IDS], 1)
    ids[0, 1, 1] = 255
    ids[2, 2] = 255
    stats = count(ids, served)
    assert stats.layers == (1, 2)
    assert stats.tokens[0, 0].tolist() == [3, 2]
    assert selections(stats) == [[3, 1, 0, 1], [0, 0, 2, 2]]


def test_columns_are_the_decoder_layers_they_are_said_to_be():
    moe = Served("deepseek@1", "vllm", experts=4, layers=[3, 1])
    assert count(served=moe).layers == (1, 3)
    assert selections(count(served=moe)) == [[0, 1, 3, 2], [3, 2, 0, 1]]
    zeros = np.concatenate([np.zeros((3, 1, 2), dtype=np.int16), IDS], 1)
    skipping = Served("deepseek@1", "vllm", experts=4, layers=(None, 1, 2))
    assert selections(count(zeros, skipping)) == selections(count())
    with pytest.raises(CaptureError, match="column 0: token 0 has expert 0 in two slots; engines fill dense layers"):
        count(zeros, Served("deepseek@1", "vllm", experts=4, layers=3))


def test_a_request_is_the_sum_of_its_parts_and_survives_a_file(tmp_path: Path):
    weights = np.random.default_rng(0).random(IDS.shape)
    whole = count(weights=weights)
    parts = [count(IDS[i : i + 1], weights=weights[i : i + 1]) for i in (2, 0, 1)]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    merged.save(tmp_path / "a.nc")
    again = RoutingStats.load(tmp_path / "a.nc")
    assert again.observed == ("selections", "weight")
    assert again.dataset().identical(whole.dataset())
    with pytest.raises(CaptureError, match="different models"):
        whole.merge(count())
    with pytest.raises(CaptureError, match="begun with another"):
        QWEN.count(whole, IDS, phase="prefill")


def test_the_same_numbers_as_a_model_observed_here():
    """Ids and weights taken from a trace, written as an engine would, give the trace's own selections and weights."""
    model, here = tiny_model("deepseek_v3"), RoutingStats()
    ids = torch.randint(3, VOCAB, (1, 10), generator=torch.Generator().manual_seed(0))
    with attach(model, stats=here) as trace, torch.no_grad():
        model(ids)
    data = trace.dataset().isel(batch=0)
    index, weight = (data[name].transpose("pos", "layer", "slot").values for name in ("expert_index", "expert_weight"))
    served = Served("tiny", "none", experts=EXPERTS, layers=tuple(map(int, data["layer"])))
    there = served.count(RoutingStats(), index, weight, phase="prefill")
    for name in ("selections", "weight"):
        assert (there.sums[name] == here.sums[name]).all()
    assert (there.tokens == here.tokens).all()
    with pytest.raises(CaptureError, match="different models"):
        here.merge(there)


def test_sglangs_payload():
    payload = base64.b64encode(IDS.astype("<i4").tobytes()).decode()
    assert (decode_routed_experts(payload, 2, 2) == IDS).all()
    assert selections(count(decode_routed_experts(payload, 2, 2))) == selections(count())
    for text, layers in (("*", 2), ("", 2), (payload, 5), (payload, 0)):
        with pytest.raises(CaptureError, match=r"not base64|whole number of tokens"):
            decode_routed_experts(text, layers, 2)


def test_a_failed_request_counts_nothing():
    stats = count()
    before = selections(stats)
    with pytest.raises(CaptureError):
        QWEN.count(stats, np.concatenate([IDS, IDS + 1]), phase="prefill")
    assert selections(stats) == before
    assert selections(QWEN.count(stats, IDS[: 0 + 1], phase="prefill"))[0] == [4, 3, 0, 1]


WEIGHTS = np.full(IDS.shape, 0.5)
REFUSED = {
    "two axes": ({"ids": IDS[0]}, r"have to be \(token, layer, slot\), not \(2, 2\)"),
    "floats": ({"ids": IDS.astype(float)}, "have to be integers, not float64"),
    "booleans": ({"ids": IDS > 1}, "have to be integers, not bool"),
    "ragged": ({"ids": [[[0, 1], [2]]]}, "ragged"),
    "layers": ({"ids": IDS[:, :1]}, "the array has 1 layers and qwen@1 is said to have 2; give the decoder layer"),
    "negative": (
        {"ids": IDS - 1},
        r"column 0: expert -1 of token 0 is out of range 0..3; if it stands for an unfilled",
    ),
    "too large": ({"ids": IDS + 1}, "column 1: expert 4 of token 0 is out of range 0..3"),
    "repeated": ({"ids": IDS // 2}, "column 0: token 0 has expert 0 in two slots"),
    "nothing": ({"ids": IDS[:0]}, "no real token"),
    "all masked": ({"mask": [0, 0, 0]}, "no real token"),
    "mask shape": ({"mask": [1, 1]}, r"the mask is \(2,\), the array has 3 tokens"),
    "mask floats": ({"mask": [1.0, 1.0, 0.5]}, "boolean or 0 and 1, not float64"),
    "weights shape": ({"weights": WEIGHTS[:2]}, r"weights have to be floats of the ids' shape \(3, 2, 2\)"),
    "weights integers": ({"weights": IDS}, "weights have to be floats"),
    "weights NaN": ({"weights": WEIGHTS * np.nan}, "not finite"),
    "weights huge": ({"weights": WEIGHTS * 1e30}, "layer 0: the pass's sum of weight is not finite or too large"),
    "phase": ({"phase": "training"}, "no phase 'training'; choose prefill or decode"),
    "no phase": ({"phase": None}, "either phase or prompt_tokens"),
    "both": ({"prompt_tokens": 1}, "either phase or prompt_tokens"),
    "long prompt": ({"phase": None, "prompt_tokens": 4}, "the prompt has 4 tokens, the array 3"),
    "group": ({"group": "fr"}, "no group fr; they have all"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arrays_are_refused(name: str):
    options, message = REFUSED[name]
    with pytest.raises(CaptureError, match=message):
        count(**options)


@pytest.mark.parametrize(
    ("experts", "layers", "fill", "message"),
    [
        (256, 2, 255, r"fill value 255 is also the number of an expert of m \(0..255\)"),
        (0, 2, None, "cannot have 0 experts"),
        (4, 0, None, "in layers 0"),
        (4, (1, 1), None, "no layer twice"),
        (4, (None, None), None, "cannot have"),
        (4, (-1, 0), None, "cannot have"),
    ],
)
def test_impossible_models_are_refused(experts: int, layers: Any, fill: int | None, message: str):
    with pytest.raises(CaptureError, match=message):
        Served("m", "e", experts, layers, fill)


def test_a_layer_that_was_named_has_to_have_been_recorded():
    served = Served("m", "sglang", experts=4, layers=(0, 1), fill=255)
    ids = IDS.copy()
    ids[:, 1] = 255
    with pytest.raises(CaptureError, match=r"layers \[1\] were named, and no slot of them is filled"):
        count(ids, served)
    with pytest.raises(CaptureError, match="the engine recorded nothing"):
        count(np.full_like(IDS, 255), Served("m", "sglang", experts=4, layers=2, fill=255))


def test_sequences_cannot_be_told_from_ids():
    with pytest.raises(CaptureError, match="importance is made of router probabilities"):
        QWEN.count(RoutingStats(sequences=True), IDS, phase="prefill")
