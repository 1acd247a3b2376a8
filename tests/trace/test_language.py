"""Language-aware and allocated routers, and experts in 8 bits, are seen and steered like all others."""

from typing import Any

import pytest
import torch

from mechanism.nn.int8 import Int8Experts
from mechanism.nn.language import tell
from mechanism.nn.language_moe import LanguageMoEConfig
from mechanism.nn.variants import VariantConfig
from mechanism.trace import Forbid, ForceSelection, attach, check

BASE: dict[str, Any] = {"hidden": 16, "experts": 8, "top_k": 2, "width": 12, "languages": 3}
LAYERS = {
    "added": LanguageMoEConfig(**BASE, signal="added"),
    "concatenated": LanguageMoEConfig(**BASE, signal="concatenated", shared_width=8),
    "task": LanguageMoEConfig(**BASE, signal="task"),
    "dedicated": LanguageMoEConfig(**BASE, groups=(0, 1, 2), common=2),
    "redundant": LanguageMoEConfig(**BASE, groups=(0, 1, 2), common=2, redundant=True),
    "own only": LanguageMoEConfig(**BASE, groups=(0, 1, 1), own=2),
    "offset": LanguageMoEConfig(**BASE, groups=(0, 1, 2), common=2, alpha=0.3),
    "int8": LanguageMoEConfig(**BASE, signal="added"),
}


def model(name):
    built = VariantConfig(LAYERS[name], vocab=61, layers=2, heads=2, head_dim=8, context=64).build().eval()
    with torch.no_grad():
        for key, p in built.named_parameters():
            if p.ndim > 1:
                p.normal_(std=0.5 if "router" in key else 0.25)
    if name == "int8":
        for layer in built.model.layers:
            layer.mlp.experts = Int8Experts(layer.mlp.experts, (0, 2, 5))
    return built


@pytest.mark.parametrize("name", LAYERS)
def test_contracts(name):
    built = model(name)
    with tell(built, 1):
        results = {r.contract: (r.status, r.detail) for r in check(built)}
    assert not {n: r for n, r in results.items() if r[0] in ("failed", "refused")}


@pytest.mark.parametrize("name", ["added", "redundant"])
def test_captured_routing_is_what_the_router_returned_and_edits_reach_it(name):
    built, ids, lang = model(name), torch.randint(61, (2, 5)), [0, 2]
    seen = []
    handle = built.model.layers[1].mlp.router.register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad(), tell(built, lang), attach(built, check=False) as trace:
        built(input_ids=ids)
    handle.remove()
    record = trace.records[0].layers[1]
    for captured, own in zip((record.logits, record.weight, record.index), seen[0], strict=True):
        assert torch.equal(captured, own.view(captured.shape))
    for edit, wanted in ((ForceSelection(((1, 7),)), True), (Forbid(((1, 7),)), False)):
        with torch.no_grad(), tell(built, lang), attach(built, [edit], check=False) as steered:
            built(input_ids=ids)
        chosen = (steered.records[0].layers[1].index == 7).any(-1)
        assert bool((chosen == wanted).all())
