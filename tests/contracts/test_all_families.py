"""The contract list over every Mixture-of-Experts family of the installed transformers."""

import pytest
import torch
import transformers

from mechanism.trace import RouterError, check
from mechanism.trace.families import families, sides, tiny_model

FLOOR = transformers.__version__.startswith("5.15.")
UNSEEN = {"doge": "look like experts"} | ({"aria_text": "look like experts"} if FLOOR else {})
UNSEEN |= {name: "does not run the experts" for name in sides() if name.startswith("nllb")}
UNSEEN |= {name: "selected without an argmax" for name in sides() if name.startswith("switch") and FLOOR}
REFUSING = {
    "phimoe": {"force_forces", "forbid_forbids"},
    "deepseek_v4": {
        "activation_activates", "deactivation_deactivates", "force_forces", "forbid_forbids", "reroute_reroutes",
    },
    "jetmoe": {
        "output_is_sum", "inside_adds_up", "block_adds_experts", "zero_ablation_removes", "mean_ablation_replaces",
    },
    "llama4_text": {"output_is_sum", "block_adds_experts", "zero_ablation_removes", "mean_ablation_replaces"},
    "axk1": {"block_adds_experts"},
    "gemma4_text": {"block_adds_experts"},
}  # fmt: skip
REFUSING |= {f"switch_transformers.{side}": REFUSING["jetmoe"] for side in ("encoder", "decoder")}
ALWAYS = {"observed_identical", "logits_are_raw", "selection_is_whole", "weights_follow_logits", "zero_edits_identical"}


@pytest.mark.parametrize("family", sorted({*families(), *sides()} - set(UNSEEN)))
def test_contracts(family):
    results = {r.contract: r for r in check(tiny_model(family))}
    assert not [r for r in results.values() if r.status == "failed"]
    assert {n for n, r in results.items() if r.status == "refused"} == REFUSING.get(family, set())
    assert {results[n].status for n in ALWAYS} == {"passed"}


@pytest.mark.parametrize("family", sorted(UNSEEN))
def test_families_that_cannot_be_observed_say_so(family):
    with pytest.raises(RouterError, match=UNSEEN[family]):
        check(tiny_model(family))


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss", "dbrx", "zaya"])
def test_contracts_in_bfloat16(family):
    results = check(tiny_model(family, dtype=torch.bfloat16))
    assert not [r for r in results if r.status == "failed"]
    assert {r.contract for r in results if r.status == "refused"} == REFUSING.get(family, set())


def test_nearly_all_families_are_observed():
    assert len(set(families()) - set(UNSEEN)) >= (46 if FLOOR else 54)
