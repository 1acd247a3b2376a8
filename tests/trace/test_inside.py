"""Inside experts: against a dense oracle, through every implementation, with planted truths, and refused by name."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mechanism.measure.relevance import forming_layers, list_super_experts
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.variants import VariantConfig
from mechanism.trace import Ablate, CaptureError, Inside, InterventionError, ScaleWeight, Trace, find_sites, pairs
from mechanism.trace.contribution_contracts import inside_adds_up
from mechanism.trace.contributions import experts_inputs
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import VOCAB
from mechanism.trace.inner import opener
from mechanism.trace.probe import Probe

IDS = torch.randint(3, VOCAB, (3, 14), generator=torch.Generator().manual_seed(1))
MASK = (torch.arange(14) >= torch.tensor([0, 5, 2])[:, None]).long()
EVERY = torch.ones_like(MASK, dtype=torch.bool)
PARTS = ("gate", "up", "activation", "output", "contribution")
IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")


@torch.no_grad()
def look(model: Any, inside: Inside, edits: Any = (), **options: Any) -> Inside:
    with Trace(model, edits, inside=inside, keep=False, **options):
        model(input_ids=IDS, attention_mask=MASK, use_cache=False)
    return inside


def swiglu(e: Any, x: Tensor, n: int) -> tuple[Tensor, ...]:
    gate, up = F.linear(x, e.gate_up_proj[n]).tensor_split(2, -1)
    activation = gate / (1 + torch.exp(-gate)) * up
    return gate, up, activation, F.linear(activation, e.down_proj[n])


def clamped(e: Any, x: Tensor, n: int) -> tuple[Tensor, ...]:
    """gpt-oss: interleaved, with biases, gate and up clamped at 7, and one added to up."""
    inner = x @ e.gate_up_proj[n] + e.gate_up_proj_bias[n]
    gate, up = inner[..., 0::2], inner[..., 1::2]
    low, both = gate.clamp(max=7), up.clamp(-7, 7)
    activation = low * torch.sigmoid(1.702 * low) * (both + 1)
    return gate, up, activation, activation @ e.down_proj[n] + e.down_proj_bias[n]


def squared(e: Any, x: Tensor, n: int) -> tuple[Tensor, ...]:
    up = F.linear(x, e.up_proj[n])
    activation = up.clamp(min=0) ** 2
    return torch.full_like(up, torch.nan), up, activation, F.linear(activation, e.down_proj[n])


ORACLES = {"qwen3_moe": swiglu, "olmoe": swiglu, "gpt_oss": clamped, "nemotron_h": squared}


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("family", ORACLES)
def test_every_part_is_that_of_a_dense_oracle(family: str, name: str):
    model = tiny_model(family)
    model.set_experts_implementation(name)
    inside, sites = Inside(tokens=EVERY), find_sites(model)
    with experts_inputs(sites) as seen:
        look(model, inside)
    stats, real = inside.dataset(), MASK.bool().flatten()
    for site in sites:
        hidden, index, weight = (
            v[real] for v in (seen[site.layer].hidden, seen[site.layer].index, seen[site.layer].weight)
        )
        with torch.no_grad():
            dense = [ORACLES[family](site.experts, hidden, n) for n in range(site.num_experts)]
        full, own = inside.at(site.layer), stats.sel(layer=site.layer)
        assert (full["expert"].values == index.numpy()).all()
        np.testing.assert_allclose(full["weight"], weight, rtol=1e-6)
        for slot, (i, part) in itertools.product(range(site.top_k), enumerate(PARTS[:4])):
            wanted = torch.stack([dense[e][i][t] for t, e in enumerate(index[:, slot].tolist())])
            if part != "gate" or family != "nemotron_h":
                np.testing.assert_allclose(full[part][:, slot], wanted, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(full["contribution"], full["output"] * full["weight"], rtol=1e-5, atol=1e-7)
        for n in range(site.num_experts):
            chose = (index == n).any(-1)
            assert own["selections"][n] == chose.sum()
            if not chose.any():
                assert np.isnan(own["norm_up"][n])
                continue
            gate, up, activation, output = (part[chose].double() for part in dense[n])
            gates = (weight * (index == n)).sum(-1)[chose].double()
            sizes = {"gate": gate, "up": up, "activation": activation, "output": output}
            sizes["contribution"] = output * gates[:, None]
            for part, values in sizes.items():
                norms = values.square().sum(-1).sqrt()
                np.testing.assert_allclose(own[f"norm_{part}"][n], norms.mean(), rtol=1e-4)
                np.testing.assert_allclose(own[f"norm_{part}_max"][n], norms.max(), rtol=1e-4)
            a, width = activation.abs(), activation.shape[-1]
            np.testing.assert_allclose(
                own["sparsity"][n], (a <= 0.01 * a.max(-1, True).values).double().mean(), rtol=1e-5
            )
            hoyer = (width**0.5 - a.sum(-1) / a.square().sum(-1).sqrt()) / (width**0.5 - 1)
            np.testing.assert_allclose(own["hoyer"][n], hoyer.mean(), rtol=1e-4)
            np.testing.assert_allclose(own["activity"][n], a.mean(0), rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(own["peak_activation"][n], a.max(), rtol=1e-4)
            np.testing.assert_allclose(own["peak_output"][n], output.abs().max(), rtol=1e-4)
            activity = (output.square().sum(-1).sqrt() * gates.abs()).sum() / MASK.sum()
            np.testing.assert_allclose(own["expert_activity"][n], activity, rtol=1e-4)
        assert own["tokens"] == MASK.sum()


def test_statistics_of_several_passes_and_of_merged_shards_are_those_of_one():
    model, whole = tiny_model("olmoe"), Inside()
    look(model, whole)
    shards = []
    for row in range(3):
        shards.append(Inside())
        with torch.no_grad(), Trace(model, inside=shards[-1]):
            model(input_ids=IDS[row : row + 1], attention_mask=MASK[row : row + 1], use_cache=False)
    together = Inside()
    with torch.no_grad(), Trace(model, inside=together):
        for row in range(3):
            model(input_ids=IDS[row : row + 1], attention_mask=MASK[row : row + 1], use_cache=False)
    for found in (together, shards[0].merge(shards[1]).merge(shards[2])):
        for name, wanted in whole.dataset().items():
            if name != "hidden_median":  # of the pass with the largest
                np.testing.assert_allclose(found.dataset()[name], wanted, rtol=1e-4, atol=1e-6, err_msg=str(name))


def test_what_is_held_does_not_grow_with_tokens():
    model, inside = tiny_model("olmoe"), Inside()

    def held() -> int:
        return sum(t.numel() for own in inside.sums.values() for t in own.values())

    before = (look(model, inside), held())[1]
    assert (look(model, inside), held())[1] == before > 0
    assert inside.kept == {}


def test_a_planted_super_expert_is_found_and_none_where_none_is():
    model = tiny_model("qwen3_moe")
    found = look(model, Inside()).dataset()
    assert len(list_super_experts(found)) == 0
    used = found["selections"].sel(layer=2).values
    expert = int(np.where(used > 0, used, used.max()).argmin())
    with torch.no_grad():
        model.model.layers[2].mlp.experts.down_proj[expert] *= 10_000
    found = look(model, Inside()).dataset()
    named = list_super_experts(found)
    assert named[["layer", "expert"]].to_numpy().tolist() == [[2, expert]]
    assert named["peak_output"].item() == found["peak_output"].sel(layer=2, expert=expert)
    assert found["peak_output"].sel(layer=2, expert=expert) > 100 * np.nanmedian(found["peak_output"])


def test_layers_that_form_massive_activations():
    assert forming_layers(np.array([1.0, 500, 600, 2, 50]), np.full(5, 0.1)).tolist() == [0, 1, 0, 0, 0]
    assert not forming_layers(np.array([500.0]), np.array([1.0])).any()
    with pytest.raises(ValueError, match="not known"):
        forming_layers(np.array([1.0, np.nan]), np.ones(2))


def test_chosen_tokens_are_those_of_the_sequence_under_padding():
    model, every = tiny_model("olmoe"), look(tiny_model("olmoe"), Inside(tokens=EVERY))
    chosen = [(1, 0), (2, 3), (0, 13)]
    found = look(model, Inside(tokens=chosen, statistics=False))
    whole, some = every.at(1), found.at(1)
    assert sorted(zip(some["sequence"].values, some["position"].values, strict=True)) == sorted(chosen)
    for row, position in chosen:
        column = int(MASK[row].argmax()) + position
        number = int(MASK.flatten()[: row * 14 + column].sum())
        at = (some["sequence"] == row) & (some["position"] == position)
        for part in PARTS:
            np.testing.assert_allclose(some[part][at.values][0], whole[part][number], rtol=1e-3, atol=1e-5)
    assert found.sums == {}
    with pytest.raises(CaptureError, match="statistics=True"):
        found.dataset()


def test_statistics_may_leave_the_opening_token_out_and_chosen_tokens_may_not():
    model = tiny_model("olmoe")
    full = look(model, Inside(tokens=EVERY)).at(1)
    inside = look(model, Inside(tokens=[(2, 0)], first=1))
    own, later = inside.dataset().sel(layer=1), full["position"].values > 0
    assert own["tokens"] == later.sum() == MASK.sum() - 3
    for expert in range(8):
        rows, slots = np.nonzero((full["expert"].values == expert) & later[:, None])
        activation = full["activation"].values[rows, slots]
        assert own["selections"][expert] == len(rows)
        if len(rows):
            np.testing.assert_allclose(own["activity"][expert], np.abs(activation).mean(0), rtol=1e-4)
            np.testing.assert_allclose(
                own["norm_activation"][expert], np.linalg.norm(activation, axis=-1).mean(), rtol=1e-4
            )
            peak = np.abs(full["output"].values[rows, slots]).max()
            np.testing.assert_allclose(own["peak_output"][expert], peak, rtol=1e-4)
    at = (full["sequence"].values == 2) & (full["position"].values == 0)
    np.testing.assert_allclose(inside.at(1)["output"], full["output"].values[at], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_autocast_and_gradients(name: str):
    model = tiny_model("olmoe")
    model.set_experts_implementation(name)
    given = {"input_ids": IDS, "attention_mask": MASK, "use_cache": False}
    grads = []
    for inside in (None, Inside(tokens=EVERY)):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16), Trace(model, inside=inside):
            model(**given).logits.float().square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.equal(*grads)


def test_a_function_of_the_ids_chooses_tokens():
    token = int(IDS[0, 4])
    found = look(tiny_model("olmoe"), Inside(tokens=lambda ids: ids == token)).at(0)
    assert found.sizes["token"] == int(((token == IDS) & MASK.bool()).sum()) > 0


@torch.no_grad()
def test_chosen_tokens_in_generation_are_those_of_a_whole_pass():
    model = tiny_model("qwen3_moe")
    chosen = [(0, 3), (1, 0), (0, 15), (1, 10)]  # the second row has nine real tokens: 0 to 8 are its prompt
    inside = Inside(tokens=chosen)
    with Trace(model, inside=inside):
        made = model.generate(IDS[:2], attention_mask=MASK[:2], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    decoded = inside.at(2)
    assert dict(zip(decoded["position"].values.tolist(), decoded["phase"].values.tolist(), strict=True)) == {
        3: "prefill", 0: "prefill", 15: "decode", 10: "decode",
    }  # fmt: skip
    mask = torch.cat([MASK[:2], torch.ones(2, 4, dtype=torch.long)], 1)
    again = Inside(tokens=chosen)
    with Trace(model, inside=again):
        model(input_ids=made, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp_min(0), use_cache=False)
    whole = again.at(2)
    for row, position in chosen:
        one, other = (
            d.isel(token=((d["sequence"] == row) & (d["position"] == position)).values) for d in (decoded, whole)
        )
        assert one.sizes["token"] == other.sizes["token"] == 1
        np.testing.assert_allclose(one["activation"], other["activation"], rtol=1e-2, atol=1e-4)
    assert inside.dataset()["tokens"].values.tolist() == [14 + 9 + 2 * 3] * 4


@torch.no_grad()
def test_a_second_pass_holds_further_sequences():
    model, inside = tiny_model("olmoe"), Inside(tokens=[(4, 2)])
    look(model, inside)
    with pytest.raises(CaptureError, match="no token was kept"):
        inside.at(0)
    look(model, inside)
    wanted = look(model, Inside(tokens=[(1, 2)])).at(0)
    np.testing.assert_array_equal(inside.at(0)["gate"], wanted["gate"])


def test_interventions_show_what_was_used():
    model = tiny_model("olmoe")
    clean = look(model, Inside(tokens=EVERY)).at(1)
    expert = int(np.bincount(clean["expert"].values.ravel()).argmax())
    hit = clean["expert"].values == expert
    zero = look(model, Inside(tokens=EVERY), [Ablate(pairs(1, expert))]).at(1)
    assert not zero["contribution"].values[hit].any()
    assert zero["output"].values[hit].any()
    np.testing.assert_array_equal(zero["contribution"].values[~hit], clean["contribution"].values[~hit])
    half = look(model, Inside(tokens=EVERY), [ScaleWeight(pairs(1, expert), factor=0.5)]).at(1)
    np.testing.assert_allclose(half["contribution"].values[hit], clean["contribution"].values[hit] / 2, rtol=1e-5)
    gone = look(model, Inside(tokens=EVERY), [Ablate(pairs(1, expert), mode="reroute")]).at(1)
    assert not (gone["expert"].values == expert).any()
    means = {1: torch.randn(8, 32)}
    mean = look(model, Inside(tokens=EVERY), [Ablate(pairs(1, expert), mode="mean")], means=means).at(1)
    assert not mean["contribution"].values[hit].any()


def test_classes_that_compute_nothing_have_a_contribution_alone():
    inside = look(tiny_model("longcat_flash"), Inside(tokens=EVERY))
    full = inside.at(inside.layers[0])
    null = full["expert"].values >= 8
    assert null.any()
    assert np.isnan(full["activation"].values[null]).all()
    assert full["contribution"].values[null].any()
    assert np.isfinite(full["activation"].values[~null]).all()
    assert int(inside.dataset()["selections"].isel(layer=0).sum()) == int((~null).sum())


def test_llama_4_weighs_the_input():
    inside = look(tiny_model("llama4_text"), Inside(tokens=EVERY)).at(0)
    np.testing.assert_array_equal(inside["output"], inside["contribution"])
    assert (inside["weight"].values > 0).all()


def test_heads_count_each():
    layer = MultiHeadMoEConfig(16, experts=8, top_k=2, width=12, heads=4)
    model = VariantConfig(layer, vocab=VOCAB, layers=2, heads=2, head_dim=8, context=64).build().eval()
    inside = look(model, Inside(tokens=[(0, 1)]))
    assert inside.at(1)["head"].values.tolist() == [0, 1, 2, 3]
    assert inside.dataset()["tokens"].values.tolist() == [4 * int(MASK.sum())] * 2


def test_experts_that_cannot_be_read_are_refused_by_name():
    with pytest.raises(InterventionError, match=r"layer 0: .* \(JetMoeMoE\) cannot be read from inside"):
        look(tiny_model("jetmoe"), Inside())
    model = tiny_model("olmoe")
    experts = model.model.layers[2].mlp.experts
    experts.down_proj.data = experts.down_proj.data.to(torch.float8_e4m3fn)
    with (
        pytest.raises(InterventionError, match=r"layer 2: .* \(OlmoeExperts\) cannot be read from inside"),
        Trace(model, inside=Inside()),
    ):
        pass


@pytest.mark.parametrize("order", ["halves", "interleaved"])
@pytest.mark.parametrize("first", ["gate", "up"])
def test_where_the_gate_stands_is_found_by_what_it_does(order: str, first: str):
    model = tiny_model("olmoe")
    experts = model.model.layers[0].mlp.experts

    def activate(inner: Tensor) -> Tensor:
        a, b = inner.chunk(2, -1) if order == "halves" else (inner[..., ::2], inner[..., 1::2])
        return F.gelu(a) * b if first == "gate" else F.gelu(b) * a

    experts.__dict__["_apply_gate"] = activate
    x = torch.randn(5, 32)
    gate, up, activation, _ = opener(find_sites(model)[0])()(3, x)
    assert gate is not None
    torch.testing.assert_close(F.gelu(gate) * up, activation)


def test_a_gate_that_is_none_is_refused():
    model = tiny_model("olmoe")
    model.model.layers[1].mlp.experts.__dict__["_apply_gate"] = lambda inner: inner[..., ::2] * inner[..., 1::2]
    with pytest.raises(InterventionError, match=r"layer 1: .* is the gate cannot be told"):
        look(model, Inside())


def test_an_output_that_is_not_the_sum_is_not_shown():
    model, inside = tiny_model("olmoe"), Inside()
    handle = model.model.layers[1].mlp.experts.register_forward_hook(lambda m, args, out: out * 1.001)
    with pytest.raises(CaptureError, match=r"layer 1: .* is not what they gave"):
        look(model, inside)
    assert inside.sums == {}
    handle.remove()
    look(model, inside)
    assert inside.dataset()["tokens"].values.tolist() == [int(MASK.sum())] * 4


def test_a_failed_pass_is_not_counted():
    model, inside = tiny_model("olmoe"), Inside(tokens=EVERY)

    def fail(*args: Any) -> None:
        raise ZeroDivisionError

    handle = model.lm_head.register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError):
        look(model, inside)
    handle.remove()
    assert (inside.sums, inside.kept, inside.hidden) == ({}, {}, {})


def test_what_makes_no_sense_is_refused():
    with pytest.raises(CaptureError, match="a share of the largest"):
        Inside(threshold=1.0)
    with pytest.raises(CaptureError, match="nothing to look at"):
        Inside(statistics=False)
    with pytest.raises(CaptureError, match=r"are \(sequence, position\) pairs"):
        Inside(tokens=[(0, 1.5)])
    model, inside = tiny_model("olmoe"), Inside(tokens=[(0, 99)])
    look(model, inside)
    with pytest.raises(CaptureError, match="no token was kept"):
        inside.at(0)
    some = look(model, Inside(tokens=[(0, 1), (0, 99)]))
    with pytest.raises(CaptureError, match=r"no pass had the .* \[\(0, 99\)\]"):
        some.at(0)
    with pytest.raises(CaptureError, match="another model or setting"):
        look(tiny_model("olmoe", seed=1), inside)
    with pytest.raises(CaptureError, match="cannot be merged"):
        inside.merge(look(tiny_model("olmoe", seed=1), Inside()))
    with (
        torch.no_grad(),
        Trace(model, inside=Inside(tokens=[(0, 1)])),
        pytest.raises(CaptureError, match="several texts"),
    ):
        model(input_ids=IDS[:1], position_ids=(torch.arange(14) % 7)[None], use_cache=False)


def test_the_contract_notices_an_implementation_that_computes_something_else(monkeypatch: pytest.MonkeyPatch):
    from transformers.integrations import moe

    real = moe.ALL_EXPERTS_FUNCTIONS["batched_mm"]
    monkeypatch.setitem(moe.ALL_EXPERTS_FUNCTIONS._global_mapping, "batched_mm", lambda *args: real(*args) * 1.01)
    with pytest.raises(CaptureError, match="is not what they gave"):
        inside_adds_up(Probe(tiny_model("olmoe")))
