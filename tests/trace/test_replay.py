"""Replayed routes: the model's own changes nothing, another one is followed to the slot, misfits are refused."""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.variants import VariantConfig
from mechanism.trace import (
    Ablate,
    CaptureError,
    Forbid,
    ForceSelection,
    InterventionError,
    Replay,
    Route,
    RoutingStats,
    ScaleWeight,
    Served,
    SoftSteer,
    Trace,
    expert_means,
    find_sites,
    pairs,
)
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import EXPERTS, VOCAB

IDS = torch.randint(3, VOCAB, (2, 11), generator=torch.Generator().manual_seed(1))
LEFT = (torch.arange(11) >= torch.tensor([0, 4])[:, None]).long()
RIGHT = LEFT.flip(1)


@pytest.fixture(scope="module")
def model():
    return tiny_model("qwen3_moe")


@torch.no_grad()
def run(model, *interventions, ids=IDS, mask=None, **options) -> tuple[Trace, torch.Tensor]:
    mask = torch.ones_like(ids) if mask is None else mask
    with Trace(model, interventions, **options) as trace:
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return trace, logits


@torch.no_grad()
def generate(model, **options):
    with Trace(model, **options) as trace:
        made = model.generate(
            IDS, attention_mask=LEFT, max_new_tokens=4, min_new_tokens=4, do_sample=False,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    return trace, torch.stack(made.logits)


def rotated(route: Route, by: int = 1, experts: int = EXPERTS) -> Route:
    index = {k: np.where(v >= 0, (v + by) % experts, -1) for k, v in route.index.items()}
    return Route(index, None, route.ids, route.classes)


def shuffled(route: Route) -> Route:
    """Every sequence takes its tokens' experts in the opposite order."""
    known = [np.flatnonzero(own).tolist() for own in entries(route)]
    return route.moved([dict(zip(own, own[::-1], strict=True)) for own in known])


def weights_of(route: Route) -> dict[int, np.ndarray]:
    assert route.weight is not None
    return dict(route.weight)


def entries(route: Route) -> np.ndarray:
    return route.entries(min(route.index))


@pytest.mark.parametrize("mask", [LEFT, RIGHT], ids=["left", "right"])
@pytest.mark.parametrize("weights", ["rule", "given"])
def test_its_own_route_changes_nothing_whatever_the_padding(model, mask, weights):
    alone, logits = run(model, mask=mask)
    route = alone.route()
    assert entries(route).sum(1).tolist() == [11, 7]
    assert route.shape == (2, 11)
    again, same = run(model, mask=mask, replay=Replay(route, weights))
    assert torch.equal(same, logits)
    found = again.replayed()
    assert found["tokens"].tolist() == [18] * 4
    assert not found[["unrouted", "other_tokens", "other_slots", "weight_gap"]].to_numpy().any()


def test_positions_are_those_of_real_tokens(model):
    """Recorded with padding on the left, replayed with padding on the right, and the sequences one by one."""
    route = run(model, mask=LEFT)[0].route()
    moved = torch.stack([IDS[0], IDS[1].roll(-4)])
    assert not run(model, ids=moved, mask=RIGHT, replay=route)[0].replayed()["other_slots"].any()
    with torch.no_grad(), Trace(model, replay=route) as trace:
        for ids in (IDS[:1], IDS[1:, 4:]):
            model(input_ids=ids, use_cache=False)
    assert trace.replayed()["tokens"].tolist() == [18] * 4
    assert not trace.replayed()["other_slots"].any()


def test_another_route_is_followed_to_the_slot(model):
    alone, logits = run(model, mask=LEFT)
    other = shuffled(rotated(alone.route(), 3))
    again, changed = run(model, mask=LEFT, replay=Replay(other, same_text=False))
    assert not torch.allclose(changed[LEFT.bool()], logits[LEFT.bool()], atol=1e-2)
    for layer, wanted in again.route().index.items():
        np.testing.assert_array_equal(wanted, other.index[layer])
    padding = ~LEFT.bool()
    for layer, routing in alone.records[0].layers.items():
        if layer == 0:  # above it, padding sees other states
            assert torch.equal(again.records[0].layers[layer].index[padding], routing.index[padding])


def mismatch(own, other):
    """Shares of tokens and of slots that differ, written out."""
    differs = [[expert not in mine for expert in theirs] for mine, theirs in zip(own, other, strict=True)]
    return np.mean([any(token) for token in differs]), np.mean(differs)


def test_what_the_model_would_have_done_is_reported(model):
    alone = run(model)[0].route()
    other = rotated(alone)
    found = run(model, replay=Replay(other, layers=1))[0].replayed()
    assert found.index.tolist() == [1]
    own, wanted = (r.index[1].reshape(-1, 2).tolist() for r in (alone, other))
    assert found.loc[1, ["other_tokens", "other_slots"]].tolist() == pytest.approx(mismatch(own, wanted))
    assert 0.3 < found.loc[1, "other_slots"] < 1
    assert np.isnan(found.loc[1, "weight_gap"])


def test_changes_after_replay_are_those_of_the_route(model):
    found = run(model, replay=rotated(run(model)[0].route()))[0]
    assert found.changes()["changed"].tolist() == pytest.approx(found.replayed()["other_tokens"].tolist())


def softmax_top(z, index, scale):
    e = np.exp(z - z.max(-1, keepdims=True))
    chosen = np.take_along_axis(e / e.sum(-1, keepdims=True), index, -1)
    return chosen / chosen.sum(-1, keepdims=True)


def plain_softmax(z, index, scale):
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.take_along_axis(e / e.sum(-1, keepdims=True), index, -1) * scale


def sigmoid_top(z, index, scale):
    chosen = np.take_along_axis(1 / (1 + np.exp(-z)), index, -1)
    return chosen / chosen.sum(-1, keepdims=True) * scale


GROUPED: dict[str, Any] = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 1}
RULES: dict[str, tuple[Any, dict[str, Any], float]] = {
    "qwen3_moe": (softmax_top, {"norm_topk_prob": True}, 1),
    "mixtral": (softmax_top, {}, 1),
    "gpt_oss": (softmax_top, {}, 1),
    "jetmoe": (softmax_top, {}, 1),
    "olmoe": (plain_softmax, {"norm_topk_prob": False}, 1),
    "deepseek_v2": (plain_softmax, {**GROUPED, "routed_scaling_factor": 1.5}, 1.5),
    "deepseek_v3": (sigmoid_top, {"routed_scaling_factor": 2.5}, 2.5),
    "minimax_m2": (sigmoid_top, {}, 1),
}


@pytest.mark.parametrize("family", RULES)
def test_weights_are_the_rule_on_the_live_logits(family):
    """Also where the family masks what lies outside a token's groups, or adds a bias before it selects."""
    rule, options, scale = RULES[family]
    model: Any = tiny_model(family, **options)
    again = run(model, replay=rotated(run(model)[0].route(), 3))[0]
    for layer, routing in again.records[0].layers.items():
        logits, index = routing.logits.double().numpy(), routing.index.numpy()
        np.testing.assert_allclose(routing.weight, rule(logits, index, scale), rtol=1e-4, atol=1e-6, err_msg=str(layer))


def test_a_forced_expert_outside_its_group_has_the_weight_of_the_rule():
    model: Any = tiny_model("deepseek_v2", **GROUPED)
    routing = run(model, ForceSelection(pairs(2, 5)))[0].records[0].layers[2]
    wanted = plain_softmax(routing.logits.double().numpy(), routing.index.numpy(), 1)
    hit = routing.index == 5
    assert hit.any(-1).all()
    np.testing.assert_allclose(routing.weight[hit], wanted[hit], rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen3_moe", "llama4_text", "jetmoe", "minimax_m2"])
def test_given_weights_reach_the_experts(family):
    model = tiny_model(family)
    own = run(model)[0].route()
    weight = {k: np.full(v.shape, 0.25) for k, v in own.index.items()}
    again = run(model, replay=Replay(Route(own.index, weight, own.ids), "given"))[0]
    for layer, routing in again.records[0].layers.items():
        assert (routing.weight == 0.25).all()
        first = again.replayed().loc[layer, "weight_gap"]
        assert first > 0.01
        if layer == min(own.index):
            wanted = np.abs(weights_of(own)[layer] - 0.25).sum(-1).mean() / 2
            assert first == pytest.approx(wanted, rel=1e-5)


def test_other_interventions_act_on_the_replayed_route(model):
    route = rotated(run(model)[0].route())
    weight = {k: np.full(v.shape, 0.25) for k, v in route.index.items()}
    given = Replay(Route(route.index, weight), "given")
    target = pairs(1, int(route.index[1][0, 0, 0]))
    hit = torch.from_numpy(route.index[1] == target[0][1])
    for one, wanted in ((ScaleWeight(target, factor=2.0), 0.5), (Ablate(target), 0.0)):
        routing = run(model, one, replay=given)[0].records[0].layers[1]
        assert (routing.weight[hit] == wanted).all()
        assert (routing.weight[~hit] == 0.25).all()
    steered = run(model, SoftSteer(target, strength=1.0), replay=route)[0].records[0].layers[1]
    plain = run(model, replay=route)[0].records[0].layers[1]
    assert torch.equal(steered.index, plain.index)
    assert (steered.weight[hit] > plain.weight[hit]).all()


def test_mean_ablation_weighs_the_mean_with_the_given_weight(model):
    own = run(model)[0].route()
    half = Replay(Route(own.index, {k: v / 2 for k, v in weights_of(own).items()}), "given", layers=3)
    target = pairs(3, int(own.index[3][0, 0, 0]))
    means = {3: torch.zeros_like(expert_means(model, [{"input_ids": IDS, "use_cache": False}])[3])}
    means[3][target[0][1]] = 1.0
    out = {}

    def keep(module, args, output):
        out[mode] = output

    for mode in ("zero", "mean"):
        handle = None
        with torch.no_grad(), Trace(model, Ablate(target, mode=mode), replay=half, means=means):
            handle = find_sites(model)[3].experts.register_forward_hook(keep)
            model(input_ids=IDS, use_cache=False)
        handle.remove()
    hit = own.index[3].reshape(-1, 2) == target[0][1]
    gate = (weights_of(own)[3].reshape(-1, 2) * hit).sum(-1, keepdims=True) / 2
    np.testing.assert_allclose(out["mean"] - out["zero"], gate.repeat(out["zero"].shape[-1], 1), atol=1e-5)


@pytest.mark.parametrize("weights", ["rule", "given"])
def test_generation_on_its_own_route_changes_nothing(model, weights):
    alone, logits = generate(model)
    route = alone.route()
    assert route.shape == (2, 14)  # the last token made is not run
    assert entries(route).sum(1).tolist() == [14, 10]
    again, same = generate(model, replay=Replay(route, weights))
    assert torch.equal(same, logits)
    assert again.replayed()["tokens"].tolist() == [24] * 4
    assert not again.replayed()["other_slots"].any()


def test_a_route_of_the_prompt_leaves_what_is_generated_free(model):
    prompt = run(model, mask=LEFT)[0].route()
    _, logits = generate(model)
    again, same = generate(model, replay=prompt)
    assert torch.equal(same, logits)
    assert again.replayed()[["tokens", "unrouted"]].to_numpy().tolist() == [[18, 6]] * 4


def test_generated_text_replayed_in_one_pass_is_the_generated_route(model):
    """What a trainer compares with what an engine generated."""
    route = generate(model)[0].route()
    found = run(model, ids=torch.from_numpy(route.ids[:1]), replay=Route(
        {k: v[:1] for k, v in route.index.items()}, {k: v[:1] for k, v in weights_of(route).items()}, route.ids[:1]
    ))[0].replayed()  # fmt: skip
    assert not found["other_slots"].any()
    assert (found["weight_gap"] < 1e-5).all()


def test_packed_rows_are_sequences_of_their_own(model):
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5], [*range(11)]])
    with torch.no_grad(), Trace(model) as alone:
        logits = model(input_ids=IDS, position_ids=positions, use_cache=False).logits
    route = alone.route()
    assert entries(route).sum(1).tolist() == [5, 6, 11]
    with torch.no_grad(), Trace(model, replay=route) as trace:
        assert torch.equal(model(input_ids=IDS, position_ids=positions, use_cache=False).logits, logits)
    assert not trace.replayed()["other_slots"].any()


def test_a_failed_pass_does_not_move_on_in_the_route(model):
    route = run(model)[0].route()
    handle = find_sites(model)[2].experts.register_forward_hook(lambda *_: 1 / 0)
    with torch.no_grad(), Trace(model, replay=route) as trace:
        with pytest.raises(ZeroDivisionError):
            model(input_ids=IDS, use_cache=False)
        handle.remove()
        model(input_ids=IDS, use_cache=False)
    assert trace.replayed()["tokens"].tolist() == [22] * 4


def test_a_router_with_heads_follows_every_row():
    layer = MultiHeadMoEConfig(16, experts=8, top_k=2, width=12, heads=4)
    model = VariantConfig(layer, vocab=VOCAB, layers=2, heads=2, head_dim=8, context=64).build().eval()
    alone, logits = run(model, mask=LEFT)
    route = alone.route()
    assert {values.shape for values in route.index.values()} == {(2, 11, 4, 2)}
    assert torch.equal(run(model, mask=LEFT, replay=Replay(route, "given"))[1], logits)
    other = rotated(route)
    again = run(model, mask=LEFT, replay=other)[0]
    assert again.replayed()["tokens"].tolist() == [72, 72]
    for layer_, wanted in again.route().index.items():
        np.testing.assert_array_equal(wanted, other.index[layer_])


# ---- routes of other texts


def test_a_counterfactual_route_of_a_longer_text(model):
    """Tokens of one text on the route of their counterparts in another; those without a counterpart stay."""
    german, english = IDS[:1, :6], IDS[1:]
    route = run(model, ids=english)[0].route()
    before = run(model, ids=german)[0].route()
    counterparts = {0: 0, 2: 9, 3: 9, 5: 10}
    again = run(model, ids=german, replay=Replay(route.moved([counterparts]), layers=0))[0]
    after = again.route()
    for position in range(6):
        wanted = route.index[0][0, counterparts[position]] if position in counterparts else before.index[0][0, position]
        np.testing.assert_array_equal(after.index[0][0, position], wanted)
    assert again.replayed()[["tokens", "unrouted"]].to_numpy().tolist() == [[4, 2]]


def test_another_text_is_refused_unless_it_is_said(model):
    route = run(model)[0].route()
    other = IDS.clone()
    other[1, 4] = 3 if int(IDS[1, 4]) != 3 else 4
    with pytest.raises(InterventionError, match=f"token 4 of sequence 1 is {other[1, 4]}, the route was recorded on"):
        run(model, ids=other, replay=route)
    assert run(model, ids=other, replay=Replay(route, same_text=False))[0].replayed()["tokens"].tolist() == [22] * 4


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ([{0: 0}], "1 maps name 1 positions; each of the route's 2 sequences"),
        ([{}, {}], "2 maps name 0 positions"),
        ([{0: 0}, {3: 7}], "sequence 1: position 3 takes the entry of 7, where the route has none"),
        ([{0: 99}, {}], "where the route has none"),
        ([{-1: 0}, {}], "position -1 takes"),
    ],
)
def test_maps_that_name_nothing_are_refused(model, maps, said):
    route = run(model, mask=LEFT)[0].route()
    with pytest.raises(InterventionError, match=said):
        route.moved(maps)


# ---- routes that an engine recorded


def served(route: Route, layers: int) -> np.ndarray:
    """One sequence as an engine writes it down: columns of dense layers hold zeros."""
    columns = np.zeros((int(entries(route)[0].sum()), layers, 2), dtype=np.int16)
    for layer, values in route.index.items():
        columns[:, layer] = values[0, : len(columns)]
    return columns


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3"])
def test_a_served_route_comes_back(family):
    """Through an engine's array and back: dense columns left out, the last token of SGLang missing."""
    model = tiny_model(family)
    own, logits = run(model, ids=IDS[:1])
    route = own.route()
    columns = served(route, 4)
    engine = Served(family, "vllm", EXPERTS, [k if k in route.index else None for k in range(4)])
    back = engine.route(columns, tokens=IDS[0])
    assert list(back.index) == list(route.index)
    for layer, values in back.index.items():
        np.testing.assert_array_equal(values, route.index[layer])
    again, same = run(model, ids=IDS[:1], replay=back)
    assert torch.equal(same, logits)
    assert not again.replayed()["other_slots"].any()
    short = engine.route(columns[:-1], tokens=IDS[0])
    assert run(model, ids=IDS[:1], replay=short)[0].replayed()["unrouted"].unique().tolist() == [1]
    with pytest.raises(InterventionError, match="the route was recorded on"):
        run(model, ids=IDS[1:], replay=short)


def test_fill_masks_weights_and_starts_of_engines_are_understood(model):
    route = run(model, ids=IDS[:1])[0].route()
    columns = served(route, 4).astype(np.int32)
    weights = np.stack([weights_of(route)[k][0] for k in range(4)], 1)
    columns[6:] = 255
    engine = Served("qwen", "sglang", EXPERTS, 4, fill=255)
    found = engine.route(columns, weights, mask=np.arange(11) != 2)
    assert entries(found)[0].tolist() == [True, True, False, True, True, True, *[False] * 5]
    again, _ = run(model, ids=IDS[:1], replay=Replay(found, "given"))
    assert again.replayed()[["tokens", "unrouted"]].to_numpy().tolist() == [[5, 6]] * 4
    assert not again.replayed()["weight_gap"].any()
    late = engine.route(columns[3:6], first=3, tokens=IDS[0])
    assert entries(late)[0].tolist() == [False] * 3 + [True] * 3 + [False] * 5
    assert not run(model, ids=IDS[:1], replay=late)[0].replayed()["other_slots"].any()


def test_requests_are_joined_into_a_batch(model):
    engine = Served("qwen", "vllm", EXPERTS, 4)
    whole, logits = run(model, mask=LEFT)
    own = whole.route()
    requests = [served(Route({k: v[i : i + 1] for k, v in own.index.items()}), 4) for i in range(2)]
    texts = [IDS[0], IDS[1, 4:]]
    joined = Route.joined([engine.route(r, tokens=t) for r, t in zip(requests, texts, strict=True)])
    assert joined.digest == Route(own.index).digest
    np.testing.assert_array_equal(joined.ids, own.ids)
    assert torch.equal(run(model, mask=LEFT, replay=joined)[1], logits)
    assert Route.joined([own, Route(own.index, classes=own.classes)]).ids is None


def test_an_import_of_another_model_is_seen_in_the_report(model):
    """A wrong column order shows: this is how an import is checked."""
    route = run(model, ids=IDS[:1])[0].route()
    engine = Served("qwen", "vllm", EXPERTS, [1, 0, 2, 3])
    found = run(model, ids=IDS[:1], replay=engine.route(served(route, 4)))[0].replayed()
    assert (found.loc[[0, 1], "other_tokens"] > 0.5).all()


# ---- refused


def route(index: Any = None, weight: Any = None, ids: Any = None, classes: Any = None) -> Route:
    first = np.tile(np.array([0, 1]), (2, 11, 1))
    return Route(dict.fromkeys(range(4), first) if index is None else index, weight, ids, classes)


ONE = np.array([[[0, 1], [2, 3]]])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Route({}), "same sequences and positions"),
        (lambda: Route({0: ONE, 1: ONE[:, :1]}), "same sequences and positions"),
        (lambda: Route({0: ONE.astype(float)}), "has to be integers"),
        (lambda: Route({0: ONE[0]}), "has to be integers"),
        (lambda: Route({0: np.array([[[0, 1], [2, 2]]])}), "layer 0 of the route: token 1 of sequence 0 has .* twice"),
        (lambda: Route({0: np.array([[[0, 1], [-1, 2]]])}), "only some slots filled"),
        (lambda: Route({0: np.array([[[0, 1], [-2, 2]]])}), "a negative expert"),
        (lambda: Route({0: ONE}, {1: ONE / 2}), "weights of"),
        (lambda: Route({0: ONE}, {0: ONE}), "finite floats"),
        (lambda: Route({0: ONE}, {0: ONE / 0.0}), "finite floats"),
        (lambda: Route({0: ONE}, {0: ONE[:, :1] / 2}), "finite floats"),
        (lambda: Route({0: ONE}, ids=[[1, 2, 3]]), "token ids are"),
        (lambda: Route.joined([]), "at least one|one at least"),
        (lambda: Route.joined([Route({0: ONE}), Route({1: ONE})]), "same layers"),
        (lambda: Replay(route(), "mine"), "no weights 'mine'"),
        (lambda: Replay(route(), "given"), "no weights that could be given"),
        (lambda: Replay(route(), layers=()), "names no layers"),
        (lambda: Replay(route(), layers=1.5), "no whole number"),
        (lambda: Replay(ONE), "ndarray is no route"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_senseless_routes(make, said):
    with pytest.raises(InterventionError, match=said):
        make()


@pytest.mark.parametrize(
    ("replay", "interventions", "said"),
    [
        (lambda: route({0: ONE, 1: ONE, 2: ONE}), (), r"layers \[3\] cannot be replayed"),
        (lambda: route(dict.fromkeys(range(5), ONE)), (), r"layers \[4\] cannot be replayed"),
        (lambda: Replay(route(), layers=[1, 7]), (), r"layers \[7\] cannot be replayed"),
        (lambda: route(dict.fromkeys(range(4), ONE[..., :1])), (), r"the route has \(1,\) slots a token, the router 2"),
        (lambda: route(dict.fromkeys(range(4), ONE[:, :, None])), (), r"the route has \(1, 2\) slots|begins"),
        (lambda: route(dict.fromkeys(range(4), ONE + 5)), (), "chooses from 9 experts, the router from 8"),
        (lambda: route(classes=dict.fromkeys(range(4), 64)), (), "chooses from 64 experts, the router from 8"),
        (lambda: route(), [Forbid(pairs(2, 0))], "layer 2 is replayed, Forbid cannot"),
        (lambda: route(), [Ablate(pairs(2, 0), mode="reroute")], "layer 2 is replayed, Ablate cannot"),
    ],
)
def test_routes_of_other_models_are_refused(model, replay, interventions, said):
    with pytest.raises(InterventionError, match=said):
        run(model, *interventions, replay=replay())


def test_an_intervention_in_a_layer_that_is_not_replayed_is_free(model):
    trace, _ = run(model, Forbid(pairs(2, 0)), replay=Replay(route(), layers=[0, 1, 3], same_text=False))
    assert not (trace.records[0].layers[2].index == 0).any()


def test_more_sequences_than_the_route_has(model):
    with pytest.raises(InterventionError, match="begins sequence 2, the route has 1"):
        run(model, replay=Route(dict.fromkeys(range(4), ONE)))
    with torch.no_grad(), Trace(model, replay=route()):
        model(input_ids=IDS, use_cache=False)
        with pytest.raises(InterventionError, match="begins sequence 4, the route has 2"):
            model(input_ids=IDS, use_cache=False)


def test_reports_of_nothing_are_refused(model):
    trace, _ = run(model)
    with pytest.raises(CaptureError, match="no route is replayed"):
        trace.replayed()
    with pytest.raises(CaptureError, match="nothing was replayed"):
        Trace(model, replay=route()).replayed()
    with pytest.raises(CaptureError, match="there is no route"):
        Trace(model).route()


def test_a_token_that_ran_twice_has_no_route(model):
    """As in assisted generation: a draft is taken back and the positions run again."""
    with torch.no_grad(), Trace(model) as trace:
        cache = model(input_ids=IDS, use_cache=True).past_key_values
        model(input_ids=IDS[:, :3], past_key_values=cache)
        cache.crop(-3)
        model(input_ids=IDS[:, :3], past_key_values=cache)
    with pytest.raises(CaptureError, match="token 11 of sequence 0 ran twice"):
        trace.route()


def test_a_rule_that_no_route_replaces_is_refused_by_name():
    """phimoe in training draws its experts at random."""
    model = tiny_model("phimoe").train()
    with pytest.raises(InterventionError, match="selects by a rule that a route cannot replace"):
        run(model, replay=route())


def test_statistics_say_what_was_replayed(model):
    found = route()
    stats = [RoutingStats(), RoutingStats()]
    for own, replay in zip(stats, (Replay(found), Replay(found, layers=[0, 1, 2, 3])), strict=True):
        run(model, stats=own, replay=replay)
    assert stats[0].dataset().attrs != stats[1].dataset().attrs
    assert found.digest in str(stats[0].dataset().attrs)
    assert found.digest != rotated(found).digest


def test_the_example_of_the_book_runs():
    text = (Path(__file__).resolve().parents[2] / "book" / "api" / "trace.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(block, "shown", "exec"), {})
    assert shown.getvalue().count("other_slots") == 2
