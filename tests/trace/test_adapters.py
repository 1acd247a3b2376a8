"""Adapters (peft) on routers and experts: what is captured is what the router really used, merged or not."""

import copy
import warnings

import pytest
import torch

from mechanism.trace import AttachError, CaptureError, SoftSteer, attach, check, find_sites, pairs
from mechanism.trace.families import tiny_model
from mechanism.trace.family_sizes import VOCAB

peft = pytest.importorskip("peft", reason="the extra test is not installed")

IDS = torch.randint(3, VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))
MATRIX, INNER, EXPERTS = "the router's matrix", "a linear map inside the router", "the experts' matrices"
TRAINED, OWN = "a router trained as a whole", "experts trained as a whole"
CASES = [
    *[(family, where) for family in ("qwen3_moe", "deepseek_v3", "gpt_oss") for where in (MATRIX, EXPERTS, TRAINED)],
    *[(family, INNER) for family in ("hunyuan_v1_moe", "zaya", "gemma4_text", "jetmoe", "dbrx")],
    ("phimoe", MATRIX), ("phimoe", TRAINED), ("llama4_text", MATRIX), ("llama4_text", EXPERTS), ("mixtral", OWN),
    ("gemma4_text", EXPERTS), ("nemotron_h", MATRIX), ("longcat_flash", EXPERTS),
]  # fmt: skip


def settings(site, where):
    router, experts = site.path.rpartition(".")[2], site.experts_path.rpartition(".")[2]
    inner = [name for name, m in site.router.named_modules() if name and isinstance(m, torch.nn.Linear)]
    held = [name for name, parameter in site.experts.named_parameters() if parameter.ndim == 3]
    return {
        MATRIX: {"target_parameters": [f"{router}.weight"]},
        INNER: {"target_modules": [f"{router}.{name}" for name in inner]},
        EXPERTS: {"target_parameters": [f"{experts}.{name}" for name in held]},
        TRAINED: {"target_modules": ["o_proj"], "modules_to_save": [router]},
        OWN: {"target_modules": ["o_proj"], "modules_to_save": [experts]},
    }[where]


def adapted(family, where, **options):
    """A family's tiny model under an adapter that moves it far."""
    model = tiny_model(family)
    given = options or settings(find_sites(model)[-1], where)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says that it does not know a tiny model's base
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=8, **given)).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def routed(model, edits=()):
    with attach(model, edits) as trace:
        logits = model(input_ids=IDS, use_cache=False).logits
    return logits, trace.records[0].layers


def assert_same_routing(found, wanted):
    (logits, layers), (expected, others) = found, wanted
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    assert layers.keys() == others.keys()
    for layer, own in layers.items():
        torch.testing.assert_close(own.logits, others[layer].logits, rtol=1e-3, atol=1e-3)
        assert torch.equal(own.index.sort(-1).values, others[layer].index.sort(-1).values)


@pytest.mark.parametrize(("family", "where"), CASES)
def test_what_is_captured_is_what_the_router_used(family, where):
    model = adapted(family, where)
    plain = routed(tiny_model(family))
    own = routed(model)
    assert (own[0] - plain[0]).abs().max() > 0.5
    results = check(model)
    assert not [result for result in results if result.status == "failed"]
    edit = [SoftSteer(pairs([s.layer for s in find_sites(model)], 0), strength=1.5)]
    steered = routed(model, edit)
    merged = copy.deepcopy(model).merge_and_unload()
    assert_same_routing(own, routed(merged))
    assert_same_routing(steered, routed(merged, edit))
    if where in (MATRIX, INNER):
        first = min(own[1])
        assert (own[1][first].logits - plain[1][first].logits).abs().max() > 0.5
    with model.disable_adapter():
        assert_same_routing(routed(model), plain)


def test_an_adapter_merged_in_place_counts():
    model = adapted("hunyuan_v1_moe", INNER)
    apart = routed(model)
    model.merge_adapter()
    assert_same_routing(routed(model), apart)


@pytest.mark.parametrize("family", ["phimoe", "llama4_text"])
def test_a_router_that_cannot_be_wrapped_is_refused_with_the_remedy(family):
    model = adapted(family, "", target_modules=["router"])
    with pytest.raises(AttachError, match=r"fails on a plain pass .* merge it \(peft: `merge_and_unload`\)"):
        attach(model)
    merged = model.merge_and_unload()
    assert not [result for result in check(merged) if result.status == "failed"]


def test_an_adapter_that_the_family_reads_past_is_refused_until_it_is_merged():
    model = adapted("longcat_flash", INNER)
    with pytest.raises(CaptureError, match="which acts on nothing; merge the adapter"):
        attach(model)
    apart = routed(copy.deepcopy(model).merge_and_unload())
    model.merge_adapter()
    assert_same_routing(routed(model), apart)


def test_virtual_tokens_are_refused():
    model = tiny_model("qwen3_moe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers by a name that is going
        tuned = peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(AttachError, match="puts virtual tokens before every text"):
        attach(tuned)


def test_a_wrapped_model_generates_under_a_trace_and_cannot_be_attached_twice():
    model = adapted("qwen3_moe", MATRIX)
    with torch.no_grad(), attach(model) as trace:
        model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=3, min_new_tokens=3)
        with pytest.raises(AttachError, match="attached already"):
            attach(model.get_base_model(), check=False).__enter__()
    assert [record.at.phase for record in trace.records] == ["prefill", "decode", "decode"]


def test_provenance_knows_the_adapter_its_strength_and_whether_it_acts():
    from mechanism.trace.attachable import provenance

    model = adapted("qwen3_moe", MATRIX)
    found = [provenance(model)]
    with model.disable_adapter():
        found.append(provenance(model))
    model.peft_config["default"].lora_alpha = 4
    found.append(provenance(model))
    assert len({one["adapters_settings"] for one in found}) == 3
    assert "adapters" not in provenance(tiny_model("qwen3_moe"))


def test_a_proof_is_repeated_when_an_adapter_was_added():
    from mechanism.trace.checks import _setting

    model = tiny_model("qwen3_moe")
    before = _setting(model)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    assert _setting(model) != before
