"""Tuning for a new language and distilled experts: what moves, what stays, what it costs."""

import pytest
import torch

from mechanism.nn.adapt import Tuning
from mechanism.nn.distil import copy_frame, distil, fit
from mechanism.nn.errors import LayerError
from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.language import tell
from mechanism.nn.language_moe import LanguageMoEConfig
from mechanism.nn.optim import build_optimisers
from mechanism.nn.variants import VariantConfig

LAYER = LanguageMoEConfig(16, experts=5, top_k=2, width=12, languages=2, signal="added")
CONFIG = VariantConfig(LAYER, vocab=61, layers=2, heads=1, head_dim=16, context=64)
DENSE = VariantConfig(DenseConfig(16, 24), vocab=61, layers=2, heads=1, head_dim=16, context=64)
IDS = torch.arange(40).view(4, 10)
TUNINGS = [
    Tuning("router"),
    Tuning("experts", 2),
    Tuning("experts + embedding", 2),
    Tuning("adapter", 3),
    Tuning("all"),
]


def moved(before, after):
    return {name for name, p in after.items() if name not in before or not torch.equal(p, before[name])}


@pytest.mark.parametrize("tuning", TUNINGS, ids=lambda t: t.name)
def test_only_what_is_tuned_moves_and_the_count_is_right(tuning):
    base = CONFIG.build()
    model = tuning.load(CONFIG, base.state_dict())
    with tell(base, 0), tell(model, 0):
        torch.testing.assert_close(model(input_ids=IDS).logits, base(input_ids=IDS).logits)
    count = tuning.freeze(model, [(0, 3), (1, 2)] if tuning.picks else ())
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimisers = build_optimisers(model, 1e-2, weight_decay=0.0)
    for _ in range(2):
        with tell(model, 1):
            model(input_ids=IDS, labels=IDS).loss.backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
    after = dict(model.named_parameters())
    parts = {"router": [".router."], "adapter": [".shared_experts."], "all": [""],
             "experts": [".experts."], "experts + embedding": [".experts.", "embed_tokens"]}[tuning.method]  # fmt: skip
    assert moved(before, after) == {name for name in after if any(part in name for part in parts)}
    if tuning.picks:
        up = "model.layers.0.mlp.experts.up_proj"
        changed = (after[up] != before[up]).flatten(1).any(1)
        assert changed.tolist() == [True, False, False, True, False]
    expected = {
        "router": 2 * (5 * 16 + 2 * 16), "experts": 2 * 2 * 3 * 16 * 12, "adapter": 2 * 3 * 16 * 3,
        "experts + embedding": 2 * 2 * 3 * 16 * 12 + 61 * 16, "all": CONFIG.parameters(),
    }  # fmt: skip
    assert count == expected[tuning.method]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Tuning("prompt"), "unknown method 'prompt'"),
        (lambda: Tuning("experts"), "experts and adapters need one"),
        (lambda: Tuning("all", 3), "others none"),
        (lambda: Tuning("experts", 2).freeze(CONFIG.build(), [(0, 1)]), "named for each of 2 layers"),
        (lambda: Tuning("experts", 2).freeze(CONFIG.build(), [(0, 0), (0, 1)]), "2 experts have to be named"),
        (lambda: Tuning("adapter", 2).config(DENSE), "no shared expert"),
        (lambda: Tuning("all").load(CONFIG, DENSE.build().state_dict()), "not those of the base"),
        (lambda: copy_frame(CONFIG.build(), VariantConfig(DenseConfig(16, 8), vocab=60, layers=2).build()), "differ"),
        (lambda: fit(CONFIG.build().model.layers[0].mlp.experts, DenseConfig(8, 8).build(), torch.randn(3, 16), 0),
         "cannot learn from 3 tokens"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(LayerError, match=message):
        call()


def test_names_tell_the_size_of_what_has_one():
    assert [t.name for t in TUNINGS] == ["router", "experts 2", "experts 2 + embedding", "adapter 3", "all"]


def test_distilled_experts_compute_nearly_what_the_dense_layer_does():
    dense, model = DENSE.build(), CONFIG.build()
    with torch.no_grad():
        for layer in dense.model.layers:
            for p in layer.mlp.parameters():
                p.normal_(std=0.3)
    ids = torch.randint(61, (8, 30))
    errors = distil(model, dense, ids, seed=0)
    assert errors.shape == (2, 5, 2)
    assert bool((errors[..., 0] > 0.9).all())
    assert bool((errors[..., 1] < 0.35).all())
    own, theirs = dict(model.named_parameters()), dict(dense.named_parameters())
    assert all(torch.equal(own[name], theirs[name]) for name in theirs if ".mlp." not in name)
    first, second = model.model.layers[0].mlp.experts.up_proj[:2]
    assert not torch.allclose(first, second, atol=1e-2)
    assert all(p.grad is None for p in model.parameters())
