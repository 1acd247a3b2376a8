"""Typical tokens of experts: counts agree with a plain count, and a token that one expert alone receives is named."""

import numpy as np
import pytest
import torch

from mechanism.models.load import load_model
from mechanism.models.passes import encode
from mechanism.study.base.expert_tokens import expert_tokens, selections
from mechanism.trace import attach

TEXTS = {
    "code": ["def f(x):\n    return x", "for x in y: print(x)"],
    "fiction": ["She said that she would go, <b>if</b> she could."],
}


@pytest.fixture(scope="module")
def loaded():
    return load_model("tiny", "cpu")


def test_rates_are_those_of_a_plain_count(loaded):
    model, tokenizer = loaded
    found = expert_tokens(model, tokenizer, TEXTS)
    chosen, total = np.zeros((found.sizes["layer"], found.sizes["expert"])), 0
    for ids in encode(tokenizer, TEXTS["code"]):
        with attach(model, check=False) as trace:
            model(input_ids=torch.tensor([ids]))
        index = trace.dataset()["expert_index"].isel(batch=0).transpose("layer", "pos", "slot").values[:, 1:]
        total += index.shape[1]
        for layer, row in enumerate(index):
            np.add.at(chosen[layer], row.reshape(-1), 1)
    np.testing.assert_allclose(found["rate"].sel(domain="code"), chosen / total)
    np.testing.assert_allclose(found["rate"].sum("expert"), 2)


def test_tokens_are_escaped_and_come_from_the_text(loaded):
    model, tokenizer = loaded
    found = expert_tokens(model, tokenizer, TEXTS, dim="lang", least=1)
    assert found["tokens"].dims == ("layer", "expert", "lang")
    named = " ".join(found["tokens"].values.reshape(-1).tolist())
    assert named
    assert "<" not in named


def test_selections_of_a_planted_router():
    token, index = np.array([0, 0, 0, 1, 1, 2]), np.array([[3], [3], [3], [0], [1], [-1]])
    table = selections(token, index, 3, 4)
    assert table.tolist() == [[0, 0, 0, 3], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_no_text_is_an_error(loaded):
    with pytest.raises(ValueError, match="no text"):
        expert_tokens(loaded[0], loaded[1], {})
