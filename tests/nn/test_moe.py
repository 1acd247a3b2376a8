from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mechanism.nn.errors import LayerError
from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.multihead import MultiHeadMoEConfig

from .oracles import drawn, mixture, routed

SPARSE = SparseMoEConfig(6, experts=5, top_k=2, width=4)
HEADS = MultiHeadMoEConfig(6, experts=5, top_k=2, width=4, heads=3)
CONFIGS: list[Any] = [
    DenseConfig(6, 10),
    DenseConfig(6, 10, "relu", "b1.58"),
    SPARSE,
    SparseMoEConfig(6, experts=3, top_k=1, width=4, activation="gelu", normalise=False, shared_width=8),
    HEADS,
    MultiHeadMoEConfig(6, experts=5, top_k=3, width=4, heads=2, bias=True, shared_width=3, precision="b1.58"),
    MultiHeadMoEConfig(6, experts=5, top_k=2, width=4, heads=2, head=False),
    MultiHeadMoEConfig(6, experts=5, top_k=2, width=4, heads=2, merge=False, activation="relu"),
]


def test_sparse_output_is_the_weighted_sum():
    config = SparseMoEConfig(6, experts=5, top_k=2, width=4, shared_width=3)
    layer = drawn(config.build())
    x = torch.randn(2, 3, 6, dtype=torch.double)
    flat = x.reshape(-1, 6)
    wanted = mixture(layer.experts, flat, *routed(layer.router, flat)) + layer.shared_experts(flat)
    torch.testing.assert_close(layer(x), wanted.view(x.shape))


@pytest.mark.parametrize(("head", "merge"), [(True, True), (True, False), (False, True), (False, False)])
def test_multi_head_output_is_that_of_a_loop_over_tokens_and_heads(head, merge):
    config = MultiHeadMoEConfig(6, experts=5, top_k=2, width=4, heads=3, head=head, merge=merge, bias=True)
    layer = drawn(config.build())
    x = torch.randn(2, 3, 6, dtype=torch.double)
    for token, out in zip(x.reshape(-1, 6), layer(x).reshape(-1, 6), strict=True):
        mixed = layer.head.weight @ token + layer.head.bias if head else token
        parts = []
        for h in range(3):
            sub = mixed[None, 2 * h : 2 * h + 2]
            parts.append(mixture(layer.experts, sub, *routed(layer.router, sub))[0])
        joined = torch.cat(parts)
        torch.testing.assert_close(out, layer.merge.weight @ joined + layer.merge.bias if merge else joined)


def test_one_head_without_head_and_merge_layer_is_the_sparse_layer():
    config = MultiHeadMoEConfig(6, experts=5, top_k=2, width=4, heads=1, head=False, merge=False)
    layer, sparse = config.build(), SPARSE.build()
    sparse.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 6)
    assert torch.equal(layer(x), sparse(x))


@pytest.mark.parametrize("config", [SPARSE, HEADS], ids=lambda c: c.kind)
def test_block_gradients(config):
    layer = drawn(config.build())
    x = torch.randn(2, 6, dtype=torch.double, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def output(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    inputs = [v.detach().clone().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(output, (x, *inputs))


def test_head_and_merge_begin_as_in_the_authors_code():
    torch.manual_seed(0)
    layer: Any = MultiHeadMoEConfig(64, experts=4, top_k=2, width=4, heads=2, bias=True).build()
    bound = (6 / 128) ** 0.5
    assert 0.95 * bound < float(layer.merge.weight.detach().abs().max()) <= bound
    assert 0.95 * bound < 2**0.5 * float(layer.head.weight.detach().abs().max()) <= bound + 1e-6
    assert not layer.merge.bias.any()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_counts_are_those_of_the_built_layer(config):
    layer = config.build()
    assert config.parameters() == sum(p.numel() for p in layer.parameters())
    x = torch.randn(7, 6)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x)
    assert counter.get_total_flops() == 7 * config.flops()
    assert config.active_parameters() - (12 if getattr(config, "bias", False) else 0) == config.flops() / 2


def test_backward_costs_twice_the_forward():
    layer, x = HEADS.build(), torch.randn(7, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 7 * HEADS.flops()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MultiHeadMoEConfig(7, experts=4, top_k=2, width=4, heads=2), "width 7 cannot be cut into 2 heads"),
        (lambda: MultiHeadMoEConfig(6, experts=4, top_k=2, width=4, heads=0), "cannot be cut into 0 heads"),
        (lambda: SparseMoEConfig(6, experts=4, top_k=5, width=4), "top_k = 5 of 4 experts"),
        (lambda: SparseMoEConfig(6, experts=4, top_k=1, width=4), "would not train the router"),
        (lambda: SparseMoEConfig(6, experts=4, top_k=2, width=4, shared_width=-1), "6 x -1 cannot be built"),
        (lambda: DenseConfig(6, 0), "6 x 0 cannot be built"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_configuration(build, message):
    with pytest.raises(LayerError, match=message):
        build()


@pytest.mark.parametrize("config", [SPARSE, HEADS], ids=lambda c: c.kind)
def test_bad_input_is_one_sentence(config):
    layer = config.build()
    with pytest.raises(LayerError, match="the batch is empty"):
        layer(torch.empty(0, 3, 6))
    with pytest.raises(LayerError, match="router logits are NaN"):
        layer(torch.full((1, 3, 6), torch.nan))
