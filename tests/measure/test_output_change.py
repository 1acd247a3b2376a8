import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from mechanism.measure.output_change import kl_of_change, loss_change, pick


def case(seed: int, size: float, rows: int = 4, width: int = 50):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (rows, width)), rng.normal(0, size, (rows, width))


@given(st.integers(0, 50), st.sampled_from([1e-4, 1e-2, 1.0, 10.0, 100.0]))
def test_it_is_the_divergence(seed, size):
    logits, change = case(seed, size)
    p = softmax(logits, -1)
    wanted = (p * (log_softmax(logits, -1) - log_softmax(logits + change, -1))).sum(-1)
    found = kl_of_change(torch.tensor(p), torch.tensor(change))
    np.testing.assert_allclose(found.kl, wanted, rtol=1e-6, atol=1e-15)


def test_tiny_divergences_of_float32_are_precise():
    logits, change = case(0, 1e-5)
    p = softmax(logits, -1)
    centred = change - (p * change).sum(-1, keepdims=True)
    second_order = (p * (centred**2 / 2 + centred**3 / 6)).sum(-1)
    found = kl_of_change(torch.tensor(p, dtype=torch.float32), torch.tensor(change, dtype=torch.float32))
    np.testing.assert_allclose(found.kl, second_order, rtol=1e-3)
    assert (second_order < 1e-9).all()


def test_a_constant_changes_nothing_and_no_change_is_zero():
    logits, change = case(1, 1.0)
    p = torch.tensor(softmax(logits, -1), dtype=torch.float32)
    change = torch.tensor(change, dtype=torch.float32)
    assert (kl_of_change(p, torch.zeros_like(p)).kl == 0).all()
    assert kl_of_change(p, torch.full_like(p, 3.0)).kl.max() < 1e-12
    shifted, plain = kl_of_change(p, change + 3.0), kl_of_change(p, change.clone())
    torch.testing.assert_close(shifted.kl, plain.kl, rtol=1e-5, atol=1e-9)


def test_loss_grows_by_what_the_token_lost():
    logits, change = case(2, 1.0)
    at = torch.tensor([3, 0, 7, 49])
    before, after = (np.log(softmax(z, -1))[np.arange(4), at] for z in (logits, logits + change))
    delta = torch.tensor(change)
    target = pick(delta, at)
    found = loss_change(kl_of_change(torch.tensor(softmax(logits, -1)), delta), target)
    np.testing.assert_allclose(found, before - after, rtol=1e-6)


@pytest.mark.parametrize("hole", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so(hole):
    p = torch.full((2, 4), 0.25)
    change = torch.zeros(2, 4)
    change[1, 2] = hole
    found = kl_of_change(p, change).kl
    assert found[0] == 0
    assert not found[1].isfinite()
