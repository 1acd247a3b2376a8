import torch
from hypothesis import given
from hypothesis import strategies as st

from mechanism.nn.bitlinear import BitLinear, absmax_int8, linear, ternary
from mechanism.nn.experts import Experts


def test_planted_weights_become_ternary_times_their_mean():
    weight = torch.tensor([[3.0, -0.25, -2.0], [0.5, -0.5, 5.75]])  # mean of absolute values: 2
    assert torch.equal(ternary(weight), torch.tensor([[2.0, 0.0, -2.0], [0.0, 0.0, 2.0]]))
    # 0.5 and 0.25 by 2 lie below one half; -2 by 2 is -1; 3 by 2 rounds to 2 and is cut to 1.


def test_planted_activations_become_multiples_of_their_largest_by_127():
    x = torch.tensor([[127.0, 1.4, -63.6], [2.54, 0.029, -0.011]])
    wanted = torch.tensor([[127.0, 1.0, -64.0], [2.54, 0.02, -0.02]])
    torch.testing.assert_close(absmax_int8(x), wanted)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))
def test_few_levels_per_matrix_and_row(rows, columns, seed):
    weight = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(seed))
    for matrix, one in zip(ternary(weight), weight, strict=True):
        levels = (matrix / one.abs().mean()).round(decimals=4).unique()
        assert set(levels.abs().tolist()) <= {0.0, 1.0}
    levels = absmax_int8(weight) / weight.abs().amax(-1, keepdim=True) * 127
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert bool(((absmax_int8(weight) - weight).abs() <= weight.abs().amax(-1, keepdim=True) / 253).all())


def test_zeros_stay_zeros():
    assert not ternary(torch.zeros(2, 3)).any()
    assert not absmax_int8(torch.zeros(2, 3)).any()


def test_gradients_go_straight_through():
    for quantise in (ternary, absmax_int8):
        x, scale = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
        (quantise(x) * scale).sum().backward()
        assert x.grad is not None
        assert torch.equal(x.grad, scale)


def test_the_layer_is_the_quantised_product_of_normed_rows():
    layer = BitLinear(4, 3)
    x = torch.randn(5, 4)
    normed = x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
    torch.testing.assert_close(layer(x), absmax_int8(normed) @ ternary(layer.weight).T + layer.bias)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert bool(layer.weight.grad.any())
    assert type(linear(4, 3)) is torch.nn.Linear
    assert isinstance(linear(4, 3, "b1.58"), BitLinear)


def test_each_expert_is_a_pair_of_bitlinear_layers():
    experts = Experts(3, 4, 6, "relu", "b1.58")
    with torch.no_grad():
        for p in experts.parameters():
            p.normal_()
    hidden, indices = torch.randn(7, 4), torch.randint(3, (7, 1))
    found = experts(hidden, indices, torch.ones(7, 1))
    for row, e, out in zip(hidden, indices[:, 0].tolist(), found, strict=True):
        up, down = BitLinear(4, 6, bias=False), BitLinear(6, 4, bias=False)
        up.weight.data, down.weight.data = experts.up_proj.data[e], experts.down_proj.data[e]
        torch.testing.assert_close(out, down(up(row[None]).relu())[0])
