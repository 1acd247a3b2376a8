import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechanism.nn.dispatch import PAD, grouped_linear, segments
from mechanism.nn.lm import LMConfig

SMALL = LMConfig(vocab=97, hidden=32, layers=2, heads=2, head_dim=16, experts=5, top_k=2, expert_width=24)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(3, 7), st.integers(0, 100))
def test_segments_hold_every_slot_once(tokens, slots, experts, seed):
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(tokens, experts, generator=generator).argsort(1)[:, :slots]
    source, place, padded = segments(index, experts)
    assert len(place.unique()) == index.numel()
    assert (source[place] == torch.arange(tokens).repeat_interleave(slots)).all()
    assert (padded % PAD == 0).all()
    assert padded.sum() <= len(source)
    starts = padded.cumsum(0) - padded
    inside = (place >= starts[index.flatten()]) & (place < (starts + padded)[index.flatten()])
    assert inside.all()


def test_grouped_linear_gradients():
    torch.manual_seed(0)
    x = torch.randn(12, 4, dtype=torch.double, requires_grad=True)
    weight = torch.randn(3, 5, 4, dtype=torch.double, requires_grad=True)
    counts = torch.tensor([5, 0, 6])
    assert torch.autograd.gradcheck(lambda a, b: grouped_linear(a, b, counts), (x, weight))


@pytest.mark.parametrize("reference", ["eager", "grouped_mm"])
def test_padded_equals_transformers(reference):
    model = SMALL.build()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "gate.weight" in name:
                p.normal_()
    ids = torch.randint(0, 97, (3, 17))
    found = {}
    for name in ("padded", reference):
        model.zero_grad()
        model.set_experts_implementation(name)
        out = model(input_ids=ids, labels=ids)
        out.loss.backward()
        found[name] = out.logits.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}
    torch.testing.assert_close(found["padded"][0], found[reference][0], atol=1e-5, rtol=1e-5)
    for name, gradient in found[reference][1].items():
        torch.testing.assert_close(found["padded"][1][name], gradient, atol=1e-5, rtol=1e-4, msg=name)
