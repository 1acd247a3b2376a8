"""Routers with several rows a token: seen with a `head` axis, steered and counted like all others."""

from typing import Any

import numpy as np
import pytest
import torch

from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.variants import VariantConfig
from mechanism.trace import (
    CaptureError,
    DenseModelError,
    Forbid,
    RoutingStats,
    ScaleWeight,
    attach,
    check,
    find_sites,
    routers,
)

LAYERS: dict[str, Any] = {
    "sparse": SparseMoEConfig(16, experts=8, top_k=2, width=12, shared_width=8),
    "sigmoid": SparseMoEConfig(16, experts=8, top_k=2, width=12, scoring="sigmoid", normalise=False, bias_rate=0.1),
    "top-1": SparseMoEConfig(16, experts=8, top_k=1, width=12, normalise=False, activation="relu"),
    "multi-head": MultiHeadMoEConfig(16, experts=8, top_k=2, width=12, heads=4),
    "split only": MultiHeadMoEConfig(16, experts=8, top_k=2, width=12, heads=2, head=False, merge=False),
    "bitnet": MultiHeadMoEConfig(16, experts=8, top_k=2, width=12, heads=2, precision="b1.58", shared_width=8),
}


def model(name, **options):
    config = VariantConfig(
        LAYERS[name], **{"vocab": 61, "layers": 2, "heads": 2, "head_dim": 8, "context": 64, **options}
    )
    built = config.build().eval()
    with torch.no_grad():
        for key, p in built.named_parameters():
            if p.ndim > 1:
                p.normal_(std=0.5 if "router" in key else 0.25)
    return built


@pytest.mark.parametrize("name", LAYERS)
def test_contracts(name):
    results = {r.contract: (r.status, r.detail) for r in check(model(name))}
    assert not {n: r for n, r in results.items() if r[0] == "failed"}
    merged = getattr(LAYERS[name], "merge", False)
    assert {n for n, r in results.items() if r[0] == "refused"} == ({"block_adds_experts"} if merged else set())


def test_a_dense_variant_has_no_routers():
    with pytest.raises(DenseModelError):
        find_sites(VariantConfig(DenseConfig(16, 8), vocab=61, layers=1, heads=1, head_dim=16).build())


def test_what_a_head_axis_shows_is_what_the_router_returned():
    built = model("multi-head")
    seen = []
    handle = built.model.layers[1].mlp.router.register_forward_hook(lambda m, a, out: seen.append(out))
    ids = torch.randint(61, (2, 5))
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    with torch.no_grad(), attach(built, check=False) as trace:
        built(input_ids=ids, attention_mask=mask)
    handle.remove()
    data = trace.dataset().sel(layer=1)
    assert data["router_logits"].dims == ("batch", "pos", "head", "expert")
    assert data["expert_index"].dims == ("batch", "pos", "head", "slot")
    logits, weights, indices = (t.view(2, 5, 4, -1).numpy() for t in seen[0])
    real = mask.bool().numpy()
    np.testing.assert_array_equal(data["router_logits"].values[real], logits[real])
    np.testing.assert_array_equal(data["expert_weight"].values[real], weights[real])
    np.testing.assert_array_equal(data["expert_index"].values[real], indices[real])
    assert np.isnan(data["router_logits"].values[~real]).all()


def test_one_row_a_token_has_no_head_axis():
    built = model("sparse")
    with torch.no_grad(), attach(built, check=False) as trace:
        built(input_ids=torch.zeros(1, 3, dtype=torch.long))
    assert trace.dataset()["router_logits"].dims == ("batch", "pos", "layer", "expert")


def test_statistics_count_sub_tokens_of_real_tokens():
    built, stats = model("multi-head"), RoutingStats(groups=("a", "b"), sequences=True)
    ids = torch.randint(61, (2, 6))
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    with torch.no_grad(), attach(built, stats=stats, check=False) as trace:
        trace.label(["a", "b"])
        built(input_ids=ids, attention_mask=mask)
    assert stats.tokens[0].tolist() == [[24, 24], [16, 16]]
    data = trace.dataset().isel(batch=1, pos=slice(2, None))
    index = data["expert_index"].values
    for layer in range(2):
        counted = np.bincount(index[:, layer].reshape(-1), minlength=8) / 16
        np.testing.assert_allclose(stats.dataset()["activation_rate"].values[0, 1, layer], counted)
    probability = torch.from_numpy(data["router_logits"].values).softmax(-1).mean((0, 2))
    np.testing.assert_allclose(stats.importance[1][1], probability.numpy(), rtol=1e-5)


def test_edits_reach_every_head_of_the_tokens_in_scope():
    built = model("multi-head")
    ids = torch.randint(61, (2, 6))
    with torch.no_grad(), attach(built, [Forbid(((0, 3),), positions=(2, 4))], check=False) as trace:
        built(input_ids=ids)
    index = trace.records[0].layers[0].index
    assert index.shape == (2, 6, 4, 2)
    assert not (index[:, 2:4] == 3).any()
    assert (index == 3).any()
    with torch.no_grad(), attach(built, [ScaleWeight(((0, 3),), factor=0.0, positions=(2, 4))], check=False) as trace:
        built(input_ids=ids)
    r = trace.records[0].layers[0]
    assert not r.weight[:, 2:4][r.index[:, 2:4] == 3].any()
    assert r.weight[:, :2][r.index[:, :2] == 3].all()
    assert trace.changes().loc[0, "tokens"] == 48


def test_a_router_that_sees_other_rows_than_it_says_is_refused():
    built = model("multi-head")
    built.model.layers[0].mlp.router.rows_per_token = 2
    with (
        torch.no_grad(),
        attach(built, check=False),
        pytest.raises(CaptureError, match="saw 12 tokens, the model was given 3 of 2 rows each"),
    ):
        built(input_ids=torch.zeros(1, 3, dtype=torch.long))


def test_the_rule_of_each_layer_is_recognised():
    table = routers(model("sigmoid"))
    assert set(table["scoring"]) == {"sigmoid"}
    assert set(routers(model("multi-head"))["scoring"]) == {"softmax"}
