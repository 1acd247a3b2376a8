import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechanism.nn.errors import LayerError
from mechanism.nn.experts import ACTIVATIONS, Experts

from .oracles import drawn, mixture


def call(rows, slots, d, experts):
    indices = torch.rand(rows, experts).argsort(1)[:, :slots]
    return torch.randn(rows, d, dtype=torch.double), indices, torch.rand(rows, slots, dtype=torch.double)


@settings(max_examples=30)
@given(
    st.integers(1, 12), st.integers(1, 3), st.integers(3, 6), st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 99)
)
def test_output_is_that_of_a_loop(rows, slots, count, activation, seed):
    torch.manual_seed(seed)
    experts = drawn(Experts(count, 4, 5, activation))
    given_ = call(rows, slots, 4, count)
    torch.testing.assert_close(experts(*given_), mixture(experts, *given_))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradients(activation):
    experts = drawn(Experts(3, 3, 2, activation))
    hidden, indices, weights = call(5, 2, 3, 3)

    def output(hidden, weights, up, down):
        experts.__dict__.pop("up_proj", None)
        return torch.func.functional_call(experts, {"up_proj": up, "down_proj": down}, (hidden, indices, weights))

    inputs = (hidden, weights, experts.up_proj.detach().clone(), experts.down_proj.detach().clone())
    assert torch.autograd.gradcheck(output, tuple(t.requires_grad_() for t in inputs))


def test_padded_bfloat16_is_near_float32():
    experts = Experts(2, 16, 8)
    hidden, indices, weights = torch.randn(64, 16), torch.rand(64, 2).argsort(1), torch.rand(64, 2)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = experts(hidden, indices, weights)
    torch.testing.assert_close(lowered, experts(hidden, indices, weights), atol=1e-4, rtol=3e-2)
    own = Experts(2, 16, 8).bfloat16()
    assert own(hidden.bfloat16(), indices, weights.bfloat16()).dtype == torch.bfloat16


def test_bad_calls_are_refused():
    experts = Experts(3, 4, 5)
    with pytest.raises(LayerError, match="indices reach from 0 to 3, experts from 0 to 2"):
        experts(torch.randn(2, 4), torch.tensor([[0], [3]]), torch.ones(2, 1))
    with pytest.raises(LayerError, match="no expert is selected"):
        experts(torch.randn(2, 4), torch.zeros(2, 0, dtype=torch.long), torch.ones(2, 0))
    with pytest.raises(LayerError, match="the batch is empty"):
        experts(torch.randn(0, 4), torch.zeros(0, 2, dtype=torch.long), torch.ones(0, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 5), "0 experts cannot be built"),
        ((3, 4, 0), "4 x 0 cannot be built"),
        ((3, 4, 5, "tanh"), "unknown activation 'tanh'"),
        ((3, 4, 5, "relu", "int4"), "unknown precision 'int4'"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(LayerError, match=message):
        Experts(*arguments)
