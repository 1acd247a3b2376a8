"""What a pass is taken for: cached or not, padded, packed, compiled; and router logits that transformers hands out."""

import pytest
import torch
from transformers import DynamicCache

from mechanism.trace import CaptureError, Forbid, SoftSteer, attach, find_sites, pairs
from mechanism.trace.families import tiny_model

IDS = torch.randint(3, 90, (1, 10), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    return tiny_model("olmoe")


def seen(model, edits=(), **given):
    with attach(model, edits, check=False) as trace, torch.no_grad():
        model(input_ids=IDS, **given)
    return trace.records[0]


@pytest.mark.parametrize("start", [0, 1, 40])
@pytest.mark.parametrize("cache", [False, True])
def test_position_ids_are_no_cached_tokens(model, start, cache):
    given = {"past_key_values": DynamicCache()} if cache else {}
    at = seen(model, position_ids=torch.arange(start, start + 10)[None], **given).at
    assert (at.phase, at.position[0].tolist()) == ("prefill", list(range(10)))


@pytest.mark.parametrize("fill", [0, 1])
def test_left_padding_with_position_ids_of_any_filling_is_a_prefill(model, fill):
    mask = torch.ones(1, 10, dtype=torch.long)
    mask[0, :3] = 0
    positions = (mask.cumsum(1) - 1).masked_fill(mask == 0, fill)
    at = seen(model, attention_mask=mask, position_ids=positions, past_key_values=DynamicCache()).at
    assert (at.phase, at.position[0, 3:].tolist()) == ("prefill", list(range(7)))


def test_generation_counts_on_behind_the_prompt(model):
    with attach(model, check=False) as trace, torch.no_grad():
        model.generate(input_ids=IDS, max_new_tokens=3, min_new_tokens=3, do_sample=False, pad_token_id=0)
    assert [record.at.phase for record in trace.records] == ["prefill", "decode", "decode"]
    assert [record.at.position[0, -1].item() for record in trace.records] == [9, 10, 11]


@pytest.mark.parametrize("sizes", [(5, 5), (1, 9), (3, 3, 4), (10,)])
def test_each_text_of_a_packed_row_is_counted_from_its_first_token(model, sizes):
    positions = torch.cat([torch.arange(size) for size in sizes])[None]
    site = find_sites(model)[0]
    clean = seen(model, position_ids=positions)
    assert clean.at.position[0].tolist() == positions[0].tolist()
    used = clean.layers[site.layer].index[0, 0, 0].item()
    edited = seen(model, [Forbid(pairs(site.layer, used), positions=(0, 1))], position_ids=positions)
    chosen = (edited.layers[site.layer].index[0] == used).any(-1)
    before = (clean.layers[site.layer].index[0] == used).any(-1)
    assert not chosen[positions[0] == 0].any()
    assert (chosen == before)[positions[0] > 0].all()


def test_position_ids_that_say_nothing_make_no_texts(model):
    at = seen(model, position_ids=torch.zeros(1, 10, dtype=torch.long)).at
    assert at.position[0].tolist() == list(range(10))


@pytest.mark.parametrize("mask", [torch.ones(1, 1, 10, 10), {"full_attention": None}], ids=["static", "by kind"])
def test_a_mask_that_a_static_cache_made_is_named(model, mask):
    with pytest.raises(CaptureError, match="a static cache makes another one of it: leave `cache_implementation` out"):
        seen(model, attention_mask=mask)


def test_a_forward_without_any_router_says_what_may_be_the_reason(model, monkeypatch):
    """As with one that was compiled before attaching: hooks on its modules do not run."""
    with attach(model, check=False), torch.no_grad():
        monkeypatch.setattr(model.model, "layers", torch.nn.ModuleList())
        with pytest.raises(CaptureError, match="compiled before attaching runs without them: attach first"):
            model(input_ids=IDS)


@pytest.mark.parametrize("family", ["olmoe", "mixtral", "qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("before", [False, True], ids=["fresh", "called before"])
def test_router_logits_of_transformers_are_those_that_routed(family, before):
    model = tiny_model(family)
    layers = [site.layer for site in find_sites(model)]
    given = {"input_ids": IDS, "output_router_logits": True}
    with torch.no_grad():
        if before:
            model(**given)
        with attach(model, [SoftSteer(pairs(layers, 0), strength=5.0)], check=False) as trace:
            out = model(**given)
    for got, layer in zip(out.router_logits, layers, strict=True):
        own = trace.records[0].layers[layer].logits
        torch.testing.assert_close(got.reshape(own.shape).float(), own)
