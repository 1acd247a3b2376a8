"""Experts taken from single tokens, against whole passes with the same edit."""

import numpy as np
import pytest
import torch

from mechanism.measure.output_change import kl_of_change
from mechanism.models.load import load_model
from mechanism.models.passes import encode, pad, padding_token
from mechanism.study.d_domains.swept_text import drawn_tokens, probe_tokens
from mechanism.trace import Ablate
from mechanism.trace.proof import naive_logits

TEXTS = ("The council met on Monday.", "x = [i for i in range(10)]", "Two and two are four, she said to him.")


def test_tokens_are_drawn_from_the_text_alone_and_once():
    found = drawn_tokens([1, 2, 9, 40], each=3)
    assert np.bincount(found[:, 0], minlength=4).tolist() == [0, 1, 3, 3]
    assert found[:, 1].min() >= 1
    assert len(np.unique(found, axis=0)) == len(found)
    assert (found[found[:, 0] == 2][:, 1] < 9).all()


@pytest.fixture(scope="module")
def probed():
    model, tokenizer = load_model("tiny", "cpu")
    ids = encode(tokenizer, list(TEXTS), 64)
    found = probe_tokens(model, ids, padding_token(tokenizer), each=2)
    assert found is not None
    return model, ids, padding_token(tokenizer), found


def test_effects_are_those_of_whole_passes_with_the_expert_off_at_one_token(probed):
    model, ids, padding, found = probed
    tokens, mask = pad(ids, padding)
    with torch.no_grad():
        old = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    for probe in (0, 3, 5):
        row, pos = int(found["sequence"][probe]), int(found["place"][probe]) + 1
        for layer in (0, 3):
            for slot in (0, 1):
                expert = int(found["expert"][probe, layer, slot])
                edit = Ablate(((layer, expert),), positions=(pos, pos + 1))
                new = naive_logits(model, tokens[row : row + 1], mask[row : row + 1], edit)
                kl = kl_of_change(old[row].softmax(-1), (new[0] - old[row]).clone()).kl * mask[row]
                assert float(found["kl"][probe, layer, slot]) == pytest.approx(float(kl[pos]), rel=1e-2, abs=1e-7)
                assert float(found["later"][probe, layer, slot]) == pytest.approx(
                    float(kl[pos + 1 :].sum()), rel=1e-2, abs=1e-6
                )
                assert float(kl[:pos].abs().max()) < 1e-6


def test_the_last_layer_reaches_no_later_token(probed):
    found = probed[-1]
    assert (found["later"].sel(layer=3) == 0).all()
    assert (found["later"].sel(layer=0) > 0).any()
    assert (found["weight"] > 0).all()
    assert (found["size"] > 0).all()
    assert (found["expert"] >= 0).all()
