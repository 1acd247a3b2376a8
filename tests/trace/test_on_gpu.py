"""Capture and interventions on a GPU: equal to those on a CPU, and the host waits once a pass, not once a layer."""

import copy
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from mechanism.trace import (
    Ablate,
    Activate,
    CaptureError,
    Deactivate,
    Forbid,
    ForceSelection,
    Inside,
    RoutingStats,
    ScaleWeight,
    SoftSteer,
    attach,
    expert_means,
    pairs,
)
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import VOCAB

pytestmark = pytest.mark.gpu

IDS = torch.randint(3, VOCAB, (3, 14), generator=torch.Generator().manual_seed(1))
MASK = (torch.arange(14) < torch.tensor([14, 9, 12])[:, None]).long()
TARGETS = pairs([2, 3], [1, 4])
EDITS = [
    SoftSteer(TARGETS, strength=0.5), Activate(TARGETS), Deactivate(TARGETS), ForceSelection(TARGETS), Forbid(TARGETS),
    ScaleWeight(TARGETS, factor=0.5), Ablate(TARGETS), Ablate(TARGETS, mode="reroute"), Ablate(TARGETS, mode="mean"),
]  # fmt: skip
TEXT = torch.randint(3, VOCAB, (8, 40), generator=torch.Generator().manual_seed(2))
FAMILIES = ["qwen3_moe", "olmoe", "mixtral", "deepseek_v3", "gpt_oss"]


@torch.no_grad()
def both(family, edits=(), **options):
    """`(dataset, statistics, logits)` of a CPU and of a GPU."""
    found = []
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(tiny_model(family)).to(device)
        given = {"input_ids": IDS.to(device), "attention_mask": MASK.to(device), "use_cache": False}
        means = (
            expert_means(model, [{"input_ids": TEXT.to(device), "use_cache": False}]) if options.get("means") else None
        )
        stats = RoutingStats()
        with attach(model, edits, stats=stats, means=means) as trace:
            logits = model(**given).logits.float().cpu()
        found.append((trace.dataset(), stats.dataset(), logits[MASK.bool()].numpy()))
    return found


def slots(data):
    """Selected experts and their weights, by expert: slots of equal score have no order."""
    index = data["expert_index"].values
    order = index.argsort(-1)
    return (np.take_along_axis(values, order, -1) for values in (index, data["expert_weight"].values))


def assert_alike(cpu, gpu):
    for found, wanted in zip(slots(gpu[0]), slots(cpu[0]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(gpu[0]["router_logits"], cpu[0]["router_logits"], rtol=2e-3, atol=2e-4)
    for name in cpu[1].data_vars:
        np.testing.assert_allclose(gpu[1][name], cpu[1][name], rtol=2e-3, atol=2e-3, err_msg=name)
    np.testing.assert_allclose(gpu[2], cpu[2], rtol=5e-3, atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_capture_equals_that_on_a_cpu(family):
    assert_alike(*both(family))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_route_of_a_cpu_is_followed(family):
    cpu = tiny_model(family)
    with attach(cpu) as trace:
        cpu(input_ids=IDS, attention_mask=MASK, use_cache=False)
    route, gpu = trace.route(), copy.deepcopy(cpu).to("cuda")
    with attach(gpu, replay=route) as again:
        gpu(input_ids=IDS.cuda(), attention_mask=MASK.cuda(), use_cache=False)
    for layer, wanted in again.route().index.items():
        np.testing.assert_array_equal(wanted, route.index[layer])
    assert (again.replayed()["weight_gap"] < 1e-3).all()


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: f"{type(edit).__name__} {getattr(edit, 'mode', '')}")
def test_an_intervention_equals_that_on_a_cpu(edit):
    found = both("qwen3_moe", [edit], means=getattr(edit, "mode", "") == "mean")
    assert_alike(*found)
    plain = both("qwen3_moe")[1]
    assert np.abs(found[1][2] - plain[2]).max() > 1e-2


def waits(layers, edits, keep):
    """How often the host waits for the GPU in a watched pass of a model of so many layers, less those of a bare one."""
    edits = [replace(edit, targets=pairs(range(layers), [1, 4])) for edit in edits]
    model = tiny_model("qwen3_moe", num_hidden_layers=layers).cuda()
    given = {"input_ids": IDS.cuda(), "use_cache": False}
    counts = {}
    for watched in (False, True) * 2:  # a first pass may wait for what is loaded once
        with torch.no_grad(), warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trace = attach(model, edits, keep=keep, stats=RoutingStats())
            if watched:
                trace.__enter__()
            torch.cuda.set_sync_debug_mode("warn")
            try:
                model(**given)
            finally:
                torch.cuda.set_sync_debug_mode("default")
                if watched:
                    trace.__exit__(None, None, None)
        counts[watched] = sum("synchronizing" in str(one.message) for one in told)
    return counts[True] - counts[False]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("edits", [[], *([edit] for edit in EDITS[:-1])], ids=str)
def test_the_host_waits_once_a_pass_and_not_once_a_layer(edits, keep):
    assert waits(2, edits, keep) == waits(8, edits, keep) == 1


@pytest.mark.parametrize("keep", [True, False])
def test_logits_that_are_not_numbers_are_refused_when_the_pass_ends(keep):
    model = copy.deepcopy(tiny_model("qwen3_moe")).cuda()
    with torch.no_grad():
        model.model.layers[1].mlp.gate.weight[0, 0] = torch.nan
    trace = attach(model, check=False, keep=keep, stats=RoutingStats())
    with trace, pytest.raises(CaptureError, match=r"layers\.1\..*router logits are NaN"):
        model(input_ids=IDS.cuda(), use_cache=False)
    assert not trace.records
    with pytest.raises(CaptureError):
        trace.dataset()


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_inside_experts_is_what_it_is_on_a_cpu(family, implementation):
    found = []
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(tiny_model(family)).to(device)
        model.set_experts_implementation(implementation)
        inside = Inside(tokens=[(0, 3), (2, 11)])
        with attach(model, inside=inside, keep=False):
            model(input_ids=IDS.to(device), attention_mask=MASK.to(device), use_cache=False)
        found.append(inside)
    for name, values in found[0].dataset().items():
        np.testing.assert_allclose(found[1].dataset()[name], values, rtol=5e-3, atol=2e-3, err_msg=name)
    for layer in found[0].layers:
        totals = [i.at(layer)["contribution"].sum("slot") for i in found]  # slots of equal score have no order
        np.testing.assert_allclose(totals[1], totals[0], rtol=5e-3, atol=2e-3)
