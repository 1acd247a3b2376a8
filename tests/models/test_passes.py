"""The routed pass: what it yields is what single sequences give, padding and opening tokens aside."""

import numpy as np
import pytest
import torch

from mechanism.models.load import load_model
from mechanism.models.passes import encode, padding_token, routed_passes, routed_tokens
from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.variants import VariantConfig
from mechanism.trace import DenseModelError, attach, find_sites
from mechanism.trace.continuation import CleanPass

TEXTS = ["In the beginning God created the heavens and the earth.", "Click OK.", "", "Öffnet das Fenster Ausrichtung."]


def variant(layer):
    return VariantConfig(layer, vocab=61, layers=2, heads=2, head_dim=8, context=64).build().eval()


@pytest.fixture(scope="module", params=["tiny", "multi-head"])
def loaded(request):
    """A model and sequences of token ids, each behind an opening token; one has no text."""
    if request.param == "tiny":
        model, tokenizer = load_model("tiny", "cpu")
        return model, encode(tokenizer, TEXTS), padding_token(tokenizer)
    torch.manual_seed(0)
    model = variant(MultiHeadMoEConfig(16, experts=8, top_k=2, width=12, heads=4))
    return model, [[0, *range(5, 17)], [0, 9, 9, 3], [0], [0, *range(40, 60)]], 1


@torch.no_grad()
def alone(model, ids):
    """Experts and weights of a sequence's text tokens, `(token, layer, slot)`."""
    with attach(model) as trace:
        model(input_ids=torch.tensor([ids]))
    layers = trace.records[0].layers
    parts = [
        [getattr(layers[k], name)[0, 1:].flatten(1).numpy() for k in sorted(layers)] for name in ("index", "weight")
    ]
    return [np.stack(part, 1) for part in parts]


@pytest.mark.parametrize("batch_tokens", [16, 4096])
def test_the_table_holds_what_single_sequences_select(loaded, batch_tokens):
    model, ids, padding = loaded
    found = routed_tokens(model, ids, padding, batch_tokens, weight=True)
    texts = [sequence[1:] for sequence in ids]
    assert found.token.tolist() == [token for text in texts for token in text]
    assert found.sequence.tolist() == [i for i, text in enumerate(texts) for _ in text]
    assert found.place.tolist() == [at for text in texts for at in range(len(text))]
    assert found.length.tolist() == [len(text) for text in texts for _ in text]
    for i, sequence in enumerate(ids):
        index, weight = alone(model, sequence)
        np.testing.assert_array_equal(found.index[found.sequence == i], index)
        np.testing.assert_allclose(found.weight[found.sequence == i], weight, atol=1e-5)


def test_reductions_of_the_table(loaded):
    model, ids, padding = loaded
    kept = [sequence for sequence in ids if len(sequence) > 1]
    found = routed_tokens(model, kept, padding)
    counts, rates = found.counts(), found.rates()
    heads = found.sites[0].heads
    for i, sequence in enumerate(kept):
        index, _ = alone(model, sequence)
        for layer in range(index.shape[1]):
            plain = np.bincount(index[:, layer].ravel(), minlength=found.experts)
            np.testing.assert_array_equal(counts[i, layer], plain)
            np.testing.assert_allclose(rates[i, layer], plain / ((len(sequence) - 1) * heads))
            for token, chosen in zip(index[:, layer], found.selected[found.sequence == i, layer], strict=True):
                assert set(np.flatnonzero(chosen)) == set(token)
    with pytest.raises(ValueError, match="without tokens"):
        routed_tokens(model, ids, padding).rates()


def test_a_slot_without_a_routed_expert_is_empty(loaded):
    model, ids, padding = loaded
    one = next(routed_passes(model, ids[:1], padding))
    site = one.sites[0]
    one.routing(site).index[0, 1] = site.num_experts
    assert (one.experts(site)[0] == -1).all()
    assert (one.experts(site)[1:] >= 0).all()


def test_passes_make_logits_and_hidden_states_on_request(loaded):
    model, ids, padding = loaded
    for one in routed_passes(model, ids, padding, output_hidden_states=True):
        assert one.output.logits.shape[:2] == one.ids.shape == one.output.hidden_states[0].shape[:2]
        assert not one.output.logits.requires_grad
    for one in routed_passes(model, ids, padding, logits=False):
        assert one.output.logits.shape[1] == 1
        assert one.output.hidden_states is None


def test_a_pass_of_another_making(loaded):
    model, ids, padding = loaded
    (one,) = routed_passes(model, ids, padding, run=lambda rows, mask: CleanPass(model, rows, mask, find_sites(model)))
    for site in one.sites:
        np.testing.assert_array_equal(one.experts(site), one.of_text(one.output.index[site.layer]))


def test_the_model_is_free_between_passes(loaded):
    model, ids, padding = loaded
    for _ in routed_passes(model, ids, padding, 16):
        with attach(model):
            pass


def test_a_dense_model_passes_only_when_told():
    model = variant(DenseConfig(16, 8))
    with pytest.raises(DenseModelError):
        next(routed_passes(model, [[0, 1, 2]], 1))
    with pytest.raises(DenseModelError):
        routed_tokens(model, [[0, 1, 2]], 1)
    (one,) = routed_passes(model, [[0, 1, 2]], 1, dense=True)
    assert one.record is None
    assert one.text.tolist() == [[False, True, True]]


def test_no_sequence_is_an_error(loaded):
    with pytest.raises(ValueError, match="no text"):
        routed_tokens(loaded[0], [], 0)
