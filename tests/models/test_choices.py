from typing import Any

import numpy as np
import pytest

from mechanism.corpus.tasks import ChoiceItem, word_problem_items
from mechanism.models.choices import FAST, EditedChoices
from mechanism.models.load import load_model
from mechanism.models.scoring import choice_logprobs, encode_choices
from mechanism.trace import Activate, Deactivate, SoftSteer, attach
from mechanism.trace.families import tiny_model
from mechanism.trace.restart import decoder_layers, restarted

EDITS = [
    None,
    SoftSteer(((0, 1), (2, 3)), strength=0.7),
    SoftSteer(((2, 3),), strength=0.7),
    Activate(((1, 0), (3, 2))),
    Deactivate(((3, 2),)),
    SoftSteer(((2, 3),), strength=0.7),
    (SoftSteer(((2, 3),), strength=-2.0), SoftSteer(((1, 2), (2, 0)), strength=1.0)),
]


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", "cpu")


def items(tokenizer):
    def count(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = [item for code in ("en", "hi") for item in word_problem_items(code, count, "test", 5)]
    return [*found, ChoiceItem("x", "x", "Click", (" OK", " on the menu now", " OK then", " zebra"), 0)]


def plainly(model, tokenizer, chosen, edit):
    contexts, choices = zip(*(encode_choices(tokenizer, item) for item in chosen), strict=True)
    if edit is None:
        return choice_logprobs(model, contexts, choices, tokenizer.pad_token_id)
    with attach(model, edit, keep=False):
        return choice_logprobs(model, contexts, choices, tokenizer.pad_token_id)


def test_sharing_changes_no_score(tiny):
    model, tokenizer = tiny
    chosen = items(tokenizer)
    found = EditedChoices(model, tokenizer, max_tokens=200)(chosen, EDITS)
    assert found.note == FAST
    for edit, scores in zip(EDITS, found.logprob, strict=True):
        np.testing.assert_allclose(scores, plainly(model, tokenizer, chosen, edit), atol=1e-4)
    assert (found.logprob[1] != found.logprob[0]).any(), "the edit has an effect"
    assert found.moved[0] == 0
    assert (found.moved[1:] > 0).all()
    assert found.moved[2] == found.moved[5]


def test_layers_below_the_edit_do_not_run_again_and_come_back(tiny):
    model, tokenizer = tiny
    run: list[int] = []
    stack: Any = decoder_layers(model)
    handles = [
        layer.mlp.register_forward_hook(lambda module, args, output, number=number: run.append(number))
        for number, layer in enumerate(stack)
    ]
    chosen, scorer = items(tokenizer)[:3], EditedChoices(model, tokenizer)
    scorer(chosen, [None])
    run.clear()
    scorer(chosen, [SoftSteer(((2, 0),), strength=1.0), SoftSteer(((3, 0),), strength=1.0)])
    for handle in handles:
        handle.remove()
    assert run == [0, 1, 2, 3] * 2 + [2, 3] * 2 + [3] * 2
    assert not any("forward" in layer.__dict__ for layer in stack)


@pytest.mark.parametrize("family", ["gpt_oss", "granitemoehybrid", "llama4_text"])
def test_other_families_get_the_same_scores_or_are_refused(family, tiny):
    tokenizer = tiny[1]
    model = tiny_model(family, vocab_size=len(tokenizer))
    chosen = [
        ChoiceItem("a", "a", "two and two is", ("four", "five", "sixx", "nine"), 0),
        ChoiceItem("b", "b", "three is", ("1", "12", "3", "4"), 2),
    ]
    layer = len(decoder_layers(model)) - 1
    edits = [None, SoftSteer(((layer, 1),), strength=1.0), Activate(((layer, 0), (layer, 1)))]
    found = EditedChoices(model, tokenizer)(chosen, edits)
    for edit, scores in zip(edits, found.logprob, strict=True):
        if edit in found.refused:
            assert np.isnan(scores).all()
            assert "\n" not in found.refused[edit]
        else:
            np.testing.assert_allclose(scores, plainly(model, tokenizer, chosen, edit), atol=2e-3)
    assert (family == "llama4_text") == bool(found.refused), "one slot a token cannot hold two experts"


def test_a_cache_that_cannot_be_shared_is_noticed(tiny, monkeypatch):
    model, tokenizer = tiny
    chosen = items(tokenizer)[:2]
    monkeypatch.setattr(
        "mechanism.models.shared_prefix.restarted", lambda model, layer, below: restarted(model, layer, 1.1 * below)
    )
    found = EditedChoices(model, tokenizer)(chosen, EDITS[:2])
    assert found.note.startswith("plain passes")
    np.testing.assert_allclose(found.logprob[1], plainly(model, tokenizer, chosen, EDITS[1]), atol=1e-5)


def test_items_without_or_with_unequal_choices(tiny):
    scorer = EditedChoices(*tiny)
    with pytest.raises(ValueError, match="same number of choices"):
        scorer([], [None])
    with pytest.raises(ValueError, match="same number of choices"):
        scorer([ChoiceItem("a", "a", "x", ("1", "2"), 0), ChoiceItem("b", "b", "x", ("1",), 0)], [None])
