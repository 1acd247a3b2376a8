"""Laws of the streaming statistics: exact, associative, without padding, NaN where nothing was seen."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from mechanism.trace import CaptureError, RoutingStats, attach
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import VOCAB
from mechanism.trace.fixed_point import BITS
from mechanism.trace.passes import Pass
from mechanism.trace.seam import Routing

GROUPS = ("en", "sw", "zu")
LAYERS = (1, 3)
CLASSES, TOP_K = 5, 2
MEANS = ("activation_rate", "probability", "probability_std", "weight", "entropy")


def synthetic(seed: int, batch: int, pos: int, classes: int = CLASSES, gain: float = 3.0) -> dict[int, Routing]:
    """A router of each layer on random logits, weights the softmax of the selected."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for layer in LAYERS:
        logits = torch.randn(batch * pos, classes, generator=generator) * gain
        chosen = logits.topk(TOP_K)
        found[layer] = Routing(logits, chosen.indices, chosen.values.softmax(-1))
    return found


def cut(routing: dict[int, Routing], keep: Tensor) -> dict[int, Routing]:
    """Routing of some tokens, `keep` over the flattened tokens."""
    return {k: Routing(r.logits[keep], r.index[keep], r.weight[keep]) for k, r in routing.items()}


def geometry(mask: Tensor, phase: str = "prefill") -> Pass:
    return Pass(mask, mask.long().cumsum(1) - 1, phase, None)


def empty(**options: Any) -> RoutingStats:
    return RoutingStats(**{"groups": GROUPS, "layers": LAYERS, "classes": CLASSES, **options})


def counted(stats: RoutingStats, routing: dict[int, Routing], at: Pass, rows: Sequence[str]) -> RoutingStats:
    for layer, found in routing.items():
        stats.observe(layer, found, at, rows)
    stats.commit(rows)
    return stats


def bits(stats: RoutingStats) -> dict[str, bytes]:
    """Every sum, groups in alphabetical order, byte by byte."""
    order = [stats.groups.index(g) for g in sorted(stats.groups)]
    arrays = {"tokens": stats.tokens, **stats.sums}
    found = {name: np.ascontiguousarray(values[:, order]).tobytes() for name, values in arrays.items()}
    rows = sorted(name.encode() + row.tobytes() for name, row in stats.importance)
    return found | {"widths": stats.widths.tobytes(), "importance": b"".join(rows)}


masks = st.integers(1, 4).flatmap(
    lambda batch: st.integers(1, 9).flatmap(
        lambda pos: st.lists(st.booleans(), min_size=batch * pos, max_size=batch * pos).map(
            lambda flags: torch.tensor(flags).view(batch, pos)
        )
    )
)


@given(seed=st.integers(0, 99), mask=masks, data=st.data())
@settings(max_examples=60)
def test_any_split_over_passes_and_any_merge_gives_the_same_bits(seed: int, mask: Tensor, data: st.DataObject):
    batch, pos = mask.shape
    rows = data.draw(st.lists(st.sampled_from(GROUPS), min_size=batch, max_size=batch))
    routing = synthetic(seed, batch, pos)
    whole = counted(empty(), routing, geometry(mask), rows)
    part = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=batch * pos, max_size=batch * pos)))
    shards = []
    for number in range(3):
        shard = empty()
        for row, name in enumerate(rows):
            keep = (part.view(batch, pos) == number) & (torch.arange(batch) == row)[:, None]
            if keep.any():
                counted(shard, cut(routing, keep.flatten()), geometry(mask[keep][None]), [name])
        shards.append(shard)
    for a, b, c in permutations(shards):
        left, right = a.merge(b).merge(c), a.merge(b.merge(c))
        tokens_only = {k: v for k, v in bits(whole).items() if k != "widths"}
        for merged in (left, right):
            assert {k: v for k, v in bits(merged).items() if k != "widths"} == tokens_only


@given(names=st.lists(st.sets(st.sampled_from(GROUPS), min_size=1), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_merge_is_over_the_union_of_groups_in_any_order(names: list[set[str]], seed: int):
    parts = []
    for i, group in enumerate(names):
        rows = sorted(group)
        mask = torch.ones(len(rows), 3, dtype=torch.bool)
        stats = empty(groups=tuple(rows), sequences=True)
        parts.append(counted(stats, synthetic(seed + i, len(rows), 3), geometry(mask), rows))
    forward, backward = (reduce(RoutingStats.merge, order) for order in (parts, parts[::-1]))
    assert bits(forward) == bits(backward)
    assert set(forward.groups) == set().union(*names)
    assert forward.tokens.sum() == sum(p.tokens.sum() for p in parts)


def oracle(routing: Routing, keep: Tensor) -> dict[str, np.ndarray]:
    """The definitions in float64, one token after another."""
    picked = [t for t in range(len(keep)) if keep[t]]
    p = routing.logits.double().softmax(-1).numpy()[picked]
    rate, weight = np.zeros(CLASSES), np.full(CLASSES, np.nan)
    for e in range(CLASSES):
        gates = [float(routing.weight[t, s]) for t in picked for s in range(TOP_K) if routing.index[t, s] == e]
        rate[e] = len(gates) / len(picked)
        weight[e] = np.mean(gates) if gates else np.nan
    entropy = np.mean([-sum(x * np.log(x) for x in row if x > 0) for row in p])
    return {
        "activation_rate": rate, "probability": p.mean(0), "probability_std": p.std(0), "weight": weight,
        "entropy": entropy,
    }  # fmt: skip


# A rounded value is off by 2 ** -33 (probabilities) or 2 ** -29, a float32 softmax by some 1e-7. A standard deviation
# is the root of a difference of two such means.
ERROR = {"activation_rate": 1e-12, "probability": 3e-7, "weight": 2e-9, "entropy": 3e-6}


@given(seed=st.integers(0, 999), mask=masks.filter(lambda m: bool(m.any())), gain=st.sampled_from([0.0, 1.0, 8.0]))
@settings(max_examples=60)
def test_means_are_those_of_the_full_tensors(seed: int, mask: Tensor, gain: float):
    routing = synthetic(seed, mask.shape[0], mask.shape[1], gain=gain)
    data = counted(empty(), routing, geometry(mask), ["sw"] * len(mask)).dataset()
    for layer in LAYERS:
        wanted, keep = oracle(routing[layer], mask.flatten()), mask.flatten()
        found = data.sel(phase="prefill", group="sw", layer=layer)
        for name, error in ERROR.items():
            np.testing.assert_allclose(found[name].values, wanted[name], rtol=0, atol=error, err_msg=name)
        variance = found["probability_std"].values ** 2
        np.testing.assert_allclose(variance, wanted["probability_std"] ** 2, rtol=0, atol=1e-6)
        assert found["tokens"] == int(keep.sum())


@given(seed=st.integers(0, 99), mask=masks.filter(lambda m: bool(m.any())))
def test_what_stands_at_padding_changes_nothing(seed: int, mask: Tensor):
    routing, other = synthetic(seed, *mask.shape), synthetic(seed + 1, *mask.shape)
    keep = mask.flatten()[:, None]
    mixed = {
        layer: Routing(*(torch.where(keep, getattr(r, n), getattr(other[layer], n)) for n in vars(r)))
        for layer, r in routing.items()
    }
    rows = ["en"] * len(mask)
    first, second = (counted(empty(), r, geometry(mask), rows) for r in (routing, mixed))
    assert bits(first) == bits(second)
    assert first.tokens[0, 0].tolist() == [int(mask.sum())] * 2


def test_no_token_is_nan_and_never_zero():
    data = counted(empty(), synthetic(0, 1, 4), geometry(torch.ones(1, 4, dtype=torch.bool)), ["sw"]).dataset()
    seen = data.sel(phase="prefill", group="sw")
    assert seen[["activation_rate", "probability", "entropy"]].to_array().notnull().all()
    for unseen in (data.sel(phase="decode"), data.sel(group=["en", "zu"]), empty().dataset()):
        assert np.isnan(unseen[list(MEANS)].to_array()).all()
        assert (unseen["tokens"] == 0).all()


def test_an_expert_nobody_selected_has_a_rate_of_zero_and_no_weight():
    routing = synthetic(0, 1, 4)
    for chosen in routing.values():
        chosen.index[:] = torch.tensor([0, 1])
    data = counted(empty(), routing, geometry(torch.ones(1, 4, dtype=torch.bool)), ["en"]).dataset()
    found = data.sel(phase="prefill", group="en", layer=1)
    assert found["activation_rate"].values.tolist() == [1, 1, 0, 0, 0]
    assert np.isnan(found["weight"].values).tolist() == [False, False, True, True, True]


def test_experts_that_a_narrow_layer_does_not_have_are_nan():
    routing = {1: synthetic(0, 1, 4)[1], 3: synthetic(0, 1, 4, classes=3)[3]}
    stats = counted(empty(sequences=True), routing, geometry(torch.ones(1, 4, dtype=torch.bool)), ["en"])
    data = stats.merge(empty()).dataset().sel(phase="prefill", group="en")
    for name in ("activation_rate", "probability"):
        assert np.isnan(data[name].values).tolist() == [[False] * 5, [False] * 3 + [True] * 2]
    assert np.isnan(stats.importance[0][1]).tolist() == [[False] * 5, [False] * 3 + [True] * 2]


def test_phases_are_apart():
    stats, mask = empty(), torch.ones(2, 3, dtype=torch.bool)
    counted(stats, synthetic(0, 2, 3), geometry(mask), ["en", "en"])
    counted(stats, synthetic(1, 2, 1), geometry(mask[:, :1], "decode"), ["en", "en"])
    assert stats.tokens[:, 0, 0].tolist() == [6, 2]
    alone = counted(empty(), synthetic(1, 2, 1), geometry(mask[:, :1], "decode"), ["en", "en"])
    assert (stats.sums["probability"][1] == alone.sums["probability"][1]).all()


@given(seed=st.integers(0, 99), mask=masks, sequences=st.booleans())
@settings(max_examples=15)
def test_a_file_gives_back_the_same_bits(tmp_path_factory: pytest.TempPathFactory, seed: int, mask: Tensor, sequences):
    stats = empty(sequences=sequences, provenance={"model": "m", "seed": 1, "layers": (1, 2)})
    rows = [GROUPS[i % 2] for i in range(len(mask))]
    counted(stats, synthetic(seed, *mask.shape), geometry(mask), rows)
    path = tmp_path_factory.mktemp("stats") / "some.name.nc"
    stats.save(path)
    again = RoutingStats.load(path)
    assert bits(again) == bits(stats)
    assert [name for name, _ in again.importance] == (rows if sequences else [])
    assert again.dataset().identical(stats.dataset())
    assert bits(again.merge(stats)) == bits(stats.merge(stats))
    assert [p.name for p in path.parent.iterdir()] == ["some.name.nc"]
    counted(again, synthetic(seed, *mask.shape), geometry(mask), rows)
    assert bits(again) == bits(stats.merge(stats))


def test_fresh_statistics_survive_a_file(tmp_path: Path):
    RoutingStats(GROUPS).save(tmp_path / "a.nc")
    again = RoutingStats.load(tmp_path / "a.nc")
    again.bind(LAYERS, CLASSES, {"model": "m"})
    assert again.groups == GROUPS
    assert counted(again, synthetic(0, 1, 2), geometry(torch.ones(1, 2, dtype=torch.bool)), ["en"]).tokens.sum() == 4


def test_files_that_hold_something_else_are_refused(tmp_path: Path):
    (tmp_path / "text.nc").write_text("no statistics")
    empty().dataset().to_netcdf(tmp_path / "means.nc")
    for name in ("text.nc", "means.nc"):
        with pytest.raises(CaptureError, match=f"{name} does not hold routing statistics"):
            RoutingStats.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        RoutingStats.load(tmp_path / "none.nc")


@pytest.mark.parametrize(
    "other",
    [
        {"layers": (1, 2)},
        {"classes": 6},
        {"provenance": {"model": "other"}},
        {"observed": ("selections", "weight")},
    ],
    ids=str,
)
def test_different_models_are_not_mixed(other: dict[str, Any]):
    begun = empty(provenance={"model": "m"})
    second = empty(**{"provenance": {"model": "m"}, **other})
    with pytest.raises(CaptureError, match="different models or settings"):
        begun.merge(second)
    with pytest.raises(CaptureError, match="begun with another model or setting"):
        begun.bind(second.layers, second.classes, second.provenance, second.observed)


@pytest.mark.parametrize("groups", [(), ("en", "en"), "en"])
def test_groups_are_distinct_names(groups: Any):
    with pytest.raises(CaptureError, match="distinct names"):
        RoutingStats(groups)


def test_importance_of_each_sequence_is_its_mean_over_real_tokens():
    mask = torch.tensor([[False, True, True], [True, True, True], [False, False, False]])
    routing = synthetic(0, 3, 3)
    stats = counted(empty(sequences=True), routing, geometry(mask), ["en", "sw", "en"])
    assert [name for name, _ in stats.importance] == ["en", "sw", "en"]
    for row, (_, found) in enumerate(stats.importance[:2]):
        for slot, layer in enumerate(LAYERS):
            p = routing[layer].logits.double().softmax(-1).view(3, 3, CLASSES)[row]
            np.testing.assert_allclose(found[slot], p[mask[row]].mean(0).numpy(), atol=1e-6)
    assert np.isnan(stats.importance[2][1]).all(), "a row that is all padding has no importance"
    counted(stats, synthetic(1, 1, 1), geometry(torch.ones(1, 1, dtype=torch.bool), "decode"), ["en"])
    assert len(stats.importance) == 3


@pytest.mark.parametrize("index", [-1, CLASSES])
def test_a_selection_out_of_range_is_refused_not_moved_into_range(index: int):
    routing = synthetic(0, 1, 4)[1]
    routing.index[2, 1] = index
    with pytest.raises(CaptureError, match=r"layer 1: a selected expert is out of range 0\.\.4"):
        counted(empty(), {1: routing}, geometry(torch.ones(1, 4, dtype=torch.bool)), ["en"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_weights_that_cannot_be_summed_exactly_are_refused(value: float):
    routing = synthetic(0, 1, 4)[1]
    routing.weight[0, 0] = value
    stats = empty()
    with pytest.raises(CaptureError, match="layer 1: the pass's sum of weight is not finite or too large to be exact"):
        counted(stats, {1: routing}, geometry(torch.ones(1, 4, dtype=torch.bool)), ["en"])
    stats.discard()
    assert not stats.tokens.any()


def test_sums_never_overflow_silently():
    stats = empty()
    stats.sums["probability"][0, 0, 0, 0] = 2**62 - 1
    with pytest.raises(CaptureError, match="the sums are full"):
        stats.merge(stats)
    with pytest.raises(CaptureError, match="the sums are full"):
        counted(stats, synthetic(0, 1, 4), geometry(torch.ones(1, 4, dtype=torch.bool)), ["en"])
    assert not stats.tokens.any()


def test_size_does_not_depend_on_tokens(tmp_path: Path):
    sizes = []
    for tokens in (10, 10_000):
        stats = counted(empty(), synthetic(0, 1, tokens), geometry(torch.ones(1, tokens, dtype=torch.bool)), ["en"])
        stats.save(tmp_path / f"{tokens}.nc")
        sizes.append((sum(v.nbytes for v in stats.sums.values()), (tmp_path / f"{tokens}.nc").stat().st_size))
    assert sizes[0] == sizes[1]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model("qwen3_moe")


def ids(rows: int, length: int) -> Tensor:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


def test_a_models_statistics_are_those_of_its_full_tensors(model: Any):
    stats, mask = RoutingStats(("en", "sw")), torch.ones(3, 7, dtype=torch.long)
    mask[1, :4] = 0
    with attach(model, stats=stats) as trace, torch.no_grad():
        trace.label(["en", "sw", "en"])
        model(ids(3, 7), attention_mask=mask)
    full, data = trace.dataset(), stats.dataset().sel(phase="prefill")
    index, real = full["expert_index"].values, full["mask"].values
    for group, rows in (("en", [0, 2]), ("sw", [1])):
        for i, layer in enumerate(full["layer"].values):
            chosen = index[rows][real[rows]][:, i]
            rate = [(chosen == e).any(-1).mean() for e in full["expert"].values]
            assert data["activation_rate"].sel(group=group, layer=layer).values.tolist() == pytest.approx(rate)
    assert data["tokens"].sel(layer=0).values.tolist() == [14, 3]


def test_a_pass_that_fails_is_not_counted(model: Any):
    stats = RoutingStats()
    handle = model.get_submodule("model.layers.3").register_forward_hook(lambda *_: 1 / 0)
    try:
        with attach(model, stats=stats, check=False), pytest.raises(ZeroDivisionError), torch.no_grad():
            model(ids(1, 4))
    finally:
        handle.remove()
    assert not stats.tokens.any()
    assert not any(values.any() for values in stats.sums.values())


def test_shards_of_two_processes_are_one_run(model: Any, tmp_path: Path):
    batch = ids(4, 6)
    whole, shards = RoutingStats(sequences=True), []
    with attach(model, stats=whole, keep=False), torch.no_grad():
        for row in batch:
            model(row[None])
    for i, (start, stop) in enumerate(pairwise((0, 1, 4))):
        stats = RoutingStats(sequences=True)
        with attach(model, stats=stats, keep=False), torch.no_grad():
            for row in batch[start:stop]:
                model(row[None])
        stats.save(tmp_path / f"{i}.nc")
        shards.append(RoutingStats.load(tmp_path / f"{i}.nc"))
    assert bits(shards[1].merge(shards[0])) == bits(whole)
    assert [row.tobytes() for _, row in shards[0].merge(shards[1]).importance] == [
        row.tobytes() for _, row in whole.importance
    ]


def test_another_model_or_intervention_needs_fresh_statistics(model: Any):
    from mechanism.trace import Forbid

    stats = RoutingStats()
    with attach(model, stats=stats), torch.no_grad():
        model(ids(1, 3))
    for other, edits in ((tiny_model("mixtral"), []), (model, [Forbid(((0, 1),))])):
        with (
            pytest.raises(CaptureError, match="begun with another model or setting"),
            attach(other, edits, stats=stats),
        ):
            pass
    assert set(BITS) == set(stats.observed)


def watched(model, stats=None):
    stats = stats or RoutingStats()
    with attach(model, stats=stats, keep=False, check=False), torch.no_grad():
        model(input_ids=torch.tensor([[5, 6, 7, 8]]))
    return stats


def test_a_model_is_known_by_its_weights_and_not_by_its_name(tmp_path):
    first, second = tiny_model("olmoe", seed=0), tiny_model("olmoe", seed=1)
    for folder, model in (("one", first), ("two", first), ("other", second)):
        model.save_pretrained(tmp_path / folder)
    loaded = {name: AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("one", "two", "other")}
    both = watched(loaded["one"]).merge(watched(loaded["two"]))
    assert both.tokens.sum() == 2 * watched(loaded["one"]).tokens.sum(), "the same weights at two places"
    with pytest.raises(CaptureError, match="cannot be merged"):
        watched(first).merge(watched(second))
    second.save_pretrained(tmp_path / "one")
    with pytest.raises(CaptureError, match="cannot be merged"):
        watched(loaded["one"]).merge(watched(AutoModelForCausalLM.from_pretrained(tmp_path / "one").eval()))


@pytest.mark.parametrize("part", ["mlp.gate.weight", "mlp.experts.down_proj", "self_attn.q_proj.weight", "norm.weight"])
def test_a_model_that_was_changed_in_place_is_another(part):
    model = tiny_model("olmoe")
    stats = watched(model)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith(part)).mul_(-1)
    with pytest.raises(CaptureError, match="begun with another model"):
        watched(model, stats)
