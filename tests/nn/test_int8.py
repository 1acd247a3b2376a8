"""Experts in 8 bits: what is stored, how far off it is, and the expert of zeros."""

import pytest
import torch

from mechanism.nn.errors import LayerError
from mechanism.nn.experts import Experts
from mechanism.nn.int8 import Int8Experts, product, quantise_rows, saved_share


def experts(d=32, width=48, activation="swiglu", **options):
    built = Experts(4, d, width, activation, **options)
    with torch.no_grad():
        for p in built.parameters():
            p.normal_(std=0.3)
    return built


def inputs(rows=40, d=32):
    return torch.randn(rows, d), torch.stack([torch.randperm(4)[:2] for _ in range(rows)]), torch.rand(rows, 2)


def test_a_row_is_off_by_at_most_half_a_level():
    weight = torch.randn(3, 5, 64)
    values, scale = quantise_rows(weight)
    assert values.dtype == torch.int8
    error = (values.float() * scale.unsqueeze(-1) - weight).abs().amax(-1)
    assert bool((error <= scale / 2 + 1e-6).all())
    assert bool((values.abs().amax(-1) == 127).all())


@pytest.mark.parametrize("kernel", ["dequantise", "int8"])
@pytest.mark.parametrize("activation", ["swiglu", "relu"])
def test_output_is_near_that_of_the_experts_and_exact_for_those_kept(kernel, activation):
    full = experts(activation=activation)
    x, index, weight = inputs()
    with torch.no_grad():
        wanted = full(x, index, weight)
        found = Int8Experts(full, (1, 3), kernel)(x, index, weight)
        kept = Int8Experts(full, (), kernel)(x, index, weight)
    torch.testing.assert_close(kept, wanted)
    error = float((found - wanted).norm() / wanted.norm())
    assert 0 < error < 0.03


@pytest.mark.parametrize("kernel", ["dequantise", "int8"])
def test_products_are_those_of_the_stored_values(kernel):
    x, weight = torch.randn(6, 16), torch.randn(8, 16)
    values, scale = quantise_rows(weight)
    if kernel == "int8":
        own, rows = quantise_rows(x)
        x = own.float() * rows[:, None]
    torch.testing.assert_close(product(x, values, scale, kernel), x @ (values.float() * scale[:, None]).t())


@pytest.mark.parametrize("kernel", ["dequantise", "int8"])
def test_an_expert_of_zeros_stays_zero(kernel):
    full = experts()
    with torch.no_grad():
        full.up_proj[2].zero_()
        full.down_proj[2].zero_()
    values, scale = quantise_rows(full.down_proj.detach()[2])
    assert not values.any()
    assert bool((scale == 1).all())
    stored = Int8Experts(full, range(4), kernel)
    out = stored(torch.randn(5, 32), torch.full((5, 1), 2), torch.ones(5, 1))
    assert torch.equal(out, torch.zeros(5, 32))
    assert torch.equal(stored(torch.zeros(5, 32), torch.full((5, 1), 1), torch.ones(5, 1)), torch.zeros(5, 32))


def test_memory_is_a_byte_a_weight_and_a_scale_a_row():
    full = experts(d=64, width=64)
    stored = Int8Experts(full, (0, 1))
    weights, rows = 3 * 64 * 64, 3 * 64
    assert sum(b.nbytes for b in stored.buffers()) == 2 * (weights + 4 * rows) + 2 * 4 * weights
    assert saved_share(stored) == pytest.approx(1 - (64 + 4) / 128)
    assert not list(stored.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Int8Experts(experts(), (4,)), "experts .4,. are not all there: they are numbered 0 to 3"),
        (lambda: Int8Experts(experts(), (0,), "int4"), "unknown kernel 'int4'"),
        (lambda: Int8Experts(experts(precision="b1.58"), (0,)), "1.58 experts are not stored in 8 bits"),
        (lambda: quantise_rows(torch.tensor([[1.0, torch.nan]])), "not finite"),
        (lambda: saved_share(Int8Experts(experts(), ())), "nothing is saved"),
    ],
)
def test_bad_input_is_one_sentence(build, message):
    with pytest.raises(LayerError, match=message):
        build()
