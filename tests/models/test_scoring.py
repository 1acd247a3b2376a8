import numpy as np
import pytest
import torch
from scipy.special import logit, softmax
from transformers import GenerationConfig

from mechanism.corpus.tasks import ChoiceItem
from mechanism.models.load import load_model
from mechanism.models.scoring import exact_match, judged, plain_decoding, score_choices, score_text, token_logprobs
from mechanism.models.segments import segment_pass

TEXTS = ["In the beginning God created the heavens and the earth.", "Click OK.", "Öffnet das Fenster Ausrichtung."]


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", "cpu")


def naive_nll(model, tokenizer, text):
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
    with torch.no_grad():
        return float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)


def test_padded_batches_equal_single_sequences(tiny):
    model, tokenizer = tiny
    batch = segment_pass(model, tokenizer, TEXTS)
    for i, text in enumerate(TEXTS):
        alone = segment_pass(model, tokenizer, [text])
        assert np.isclose(batch.nll[i], naive_nll(model, tokenizer, text), rtol=1e-4)
        for name in ("hidden", "importance"):
            np.testing.assert_allclose(getattr(batch, name)[i], getattr(alone, name)[0], atol=1e-5)
        np.testing.assert_array_equal(batch.selections[i], alone.selections[0])


def test_routing_statistics_are_distributions_and_pads_are_not_counted(tiny):
    model, tokenizer = tiny
    found = segment_pass(model, tokenizer, TEXTS)
    np.testing.assert_allclose(found.importance.sum(-1), 1, atol=1e-5)
    top_k = model.config.num_experts_per_tok
    np.testing.assert_array_equal(found.selections.sum(-1), np.repeat(found.tokens[:, None] * top_k, 4, 1))
    assert list(found.tokens) == [len(ids) for ids in tokenizer(TEXTS)["input_ids"]]


def test_text_score_counts_every_token_once(tiny):
    model, tokenizer = tiny
    short = score_text(model, tokenizer, TEXTS)
    for i, text in enumerate(TEXTS):
        assert np.isclose(short.nll[i], naive_nll(model, tokenizer, text), rtol=1e-4)
    long = " ".join(TEXTS * 60)
    found = score_text(model, tokenizer, [long])
    assert found.tokens[0] > 600
    assert found.bytes[0] == len(long.encode())
    assert 0 < found.bits_per_byte < 8


def test_long_text_windows_give_each_token_its_context(tiny):
    model, tokenizer = tiny
    long = " ".join(f"{TEXTS[i % 3]} {i}" for i in range(40))
    ids = [tokenizer.eos_token_id, *tokenizer(long)["input_ids"]]
    assert 400 < len(ids) < 1000
    expected, done = 0.0, 1
    for start in range(0, len(ids), 128):
        window = ids[start : start + 256]
        scores = token_logprobs(model, [window], tokenizer.pad_token_id)[0]
        fresh = scores[done - start - 1 :]
        expected -= fresh.sum(dtype=np.float64)
        done += len(fresh)
        if start + 256 >= len(ids):
            break
    assert done == len(ids)
    assert np.isclose(score_text(model, tokenizer, [long]).nll[0], expected, rtol=1e-5)


def test_choice_is_the_likeliest_continuation(tiny):
    model, tokenizer = tiny
    items = [
        ChoiceItem("a", "a", "And it came to", (" pass", " zebra"), 0),
        ChoiceItem("b", "b", "And it came to", (" zebra", " pass"), 1),
        ChoiceItem("c", "c", "And it came to", (" pass", " zebra"), 1),
    ]
    assert list(score_choices(model, tokenizer, items, per_byte=False)) == [1, 1, 0]


def test_exact_match_follows_greedy_decoding(tiny):
    model, tokenizer = tiny
    context = "Anna buys 7 boxes. Each box holds 7 apples. How many apples does Anna buy? ="
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(context)["input_ids"]]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, pad_token_id=0)
    greedy = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split("\n")[0].strip()
    right = ChoiceItem("a", "a", context, (greedy, "xx"), 0)
    wrong = ChoiceItem("b", "b", context, (greedy, "xx"), 1)
    assert list(exact_match(model, tokenizer, [right, wrong])) == [1, 0]


@pytest.mark.parametrize(
    "settings", [{"repetition_penalty": 5.0}, {"min_new_tokens": 3}, {"suppress_tokens": [5, 6]}, {"num_beams": 3}]
)
def test_greedy_decoding_is_ours_and_not_the_checkpoints(tiny, settings):
    model, tokenizer = tiny
    contexts = ["Click OK. Click", "In the beginning God created the heavens and the", "3 + 4 ="]
    items = [ChoiceItem(str(i), str(i), c, (" OK", " earth", " 7"), i) for i, c in enumerate(contexts)]
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(contexts[0])["input_ids"]]])
    asked = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    plain, hits = model.generate(ids, **asked), exact_match(model, tokenizer, items)
    own = model.generation_config
    model.generation_config = GenerationConfig(**{**own.to_dict(), **settings})
    try:
        with plain_decoding(model):
            assert torch.equal(model.generate(ids, **asked), plain)
        assert (exact_match(model, tokenizer, items) == hits).all()
        assert all(getattr(model.generation_config, name) == value for name, value in settings.items()), "given back"
    finally:
        model.generation_config = own


def test_the_margin_is_the_log_odds_of_the_true_choice():
    items = [ChoiceItem("a", "a", "x", (" one", " two", " three", " four"), answer) for answer in (0, 2, 3)]
    scores = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    scores[4] = np.nan
    hits, found = judged(items, scores, False)
    p = softmax(scores[:4].astype(np.float64), -1)
    true = np.stack([p[:, i, item.answer] for i, item in enumerate(items)], 1)
    np.testing.assert_allclose(found[:4], logit(true), atol=1e-9)
    assert (hits[:4] == (true == p.max(-1))).all()
    assert np.isnan(found[4]).all()
    assert np.isnan(hits[4]).all()
    size = [len(choice) for choice in items[1].choices]
    own, _ = judged(items, scores, [False, True, False])
    assert (own[:4, 1] == ((scores[:4, 1] / size).argmax(-1) == 2)).all()
    np.testing.assert_array_equal(own[:, ::2], hits[:, ::2])
