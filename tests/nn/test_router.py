import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mechanism.nn.errors import LayerError
from mechanism.nn.router import TopKRouter, balance_loss, z_loss

from .oracles import drawn, routed


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalise", [True, False])
def test_selection_and_weights_are_those_of_the_oracle(scoring, normalise):
    router = drawn(TopKRouter(6, 5, 3, scoring, normalise))
    hidden = torch.randn(2, 7, 6, dtype=torch.double)
    logits, weights, indices = router(hidden)
    wanted, scales = routed(router, hidden.reshape(-1, 6))
    assert torch.equal(indices, wanted)
    torch.testing.assert_close(weights, scales)
    torch.testing.assert_close(logits, hidden.reshape(-1, 6) @ router.weight.T)


@given(st.integers(1, 9), st.integers(1, 6), st.booleans(), st.sampled_from(["softmax", "sigmoid"]), st.integers(0, 99))
def test_slots_are_distinct_and_weights_bounded(rows, top_k, normalise, scoring, seed):
    torch.manual_seed(seed)
    router = drawn(TopKRouter(4, 6, top_k, scoring, normalise and top_k > 1))
    _, weights, indices = router(torch.randn(rows, 4, dtype=torch.double))
    assert all(len(set(row)) == top_k for row in indices.tolist())
    assert bool((weights >= 0).all())
    assert bool((weights <= 1 + 1e-9).all())
    if router.normalise:
        torch.testing.assert_close(weights.sum(-1), torch.ones(rows, dtype=torch.double))


@given(st.permutations(range(5)), st.integers(0, 99))
def test_renaming_experts_renames_the_selection(order, seed):
    torch.manual_seed(seed)
    router, renamed = drawn(TopKRouter(4, 5, 2)), drawn(TopKRouter(4, 5, 2))
    with torch.no_grad():
        renamed.weight.copy_(router.weight[list(order)])
    hidden = torch.randn(6, 4, dtype=torch.double)
    (_, weights, indices), (_, again, chosen) = router(hidden), renamed(hidden)
    assert torch.equal(torch.tensor(order)[chosen], indices)
    torch.testing.assert_close(again, weights)


def test_one_normalised_slot_would_not_train_the_router():
    with pytest.raises(LayerError, match="would not train the router; set normalise to False"):
        TopKRouter(4, 5, 1)
    router = drawn(TopKRouter(4, 5, 1, normalise=False))
    router(torch.randn(6, 4, dtype=torch.double))[1].sum().backward()
    assert float(router.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 6}, "top_k = 6 of 5 experts"),
        ({"top_k": 0}, "top_k = 0 of 5 experts"),
        ({"scoring": "tanh"}, "unknown scoring 'tanh'; use softmax or sigmoid"),
        ({"bias_rate": -1.0}, "must not be negative"),
    ],
)
def test_what_cannot_route_is_refused(options, message):
    with pytest.raises(LayerError, match=message):
        TopKRouter(**{"d": 4, "num_experts": 5, "top_k": 2, **options})


def test_empty_batches_and_nan_are_refused():
    router = TopKRouter(4, 5, 2)
    with pytest.raises(LayerError, match="the batch is empty"):
        router(torch.empty(0, 4))
    hidden = torch.randn(3, 4)
    hidden[1, 2] = torch.nan
    with pytest.raises(LayerError, match="router logits are NaN"):
        router(hidden)


def test_correction_moves_selection_and_not_weights_towards_an_even_load():
    router = drawn(TopKRouter(4, 5, 2, "sigmoid", normalise=False, bias_rate=0.01))
    hidden = torch.randn(400, 4, dtype=torch.double) + 0.5
    spread = []
    for _ in range(150):
        logits, weights, indices = router(hidden)
        spread.append(float(indices.flatten().bincount(minlength=5).double().std()))
        router.update_correction()
    assert spread[-1] < 0.2 * spread[0]
    torch.testing.assert_close(weights, logits.sigmoid().gather(-1, indices))
    assert "correction" in router.state_dict()
    before = router.correction.clone()
    router.eval()(hidden)
    router.update_correction()
    assert torch.equal(router.correction, before)


def test_balance_loss_of_sigmoid_scores_is_one_when_uniform():
    index = torch.arange(8).reshape(8, 1) % 4
    assert torch.isclose(balance_loss(torch.zeros(8, 4), index, "sigmoid"), torch.tensor(1.0))
    skewed = torch.tensor([[9.0, -9, -9, -9]]).repeat(8, 1)
    assert float(balance_loss(skewed, torch.zeros(8, 1, dtype=torch.long), "sigmoid")) > 3.9


def test_z_loss_is_the_squared_log_partition():
    assert torch.isclose(z_loss(torch.zeros(3, 4)), torch.tensor(4.0).log() ** 2)
