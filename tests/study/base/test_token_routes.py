"""Routes of texts and of what is generated behind them are those of a plain loop over single texts, token by token."""

import numpy as np
import pytest
import torch

from mechanism.corpus.library import DATA
from mechanism.corpus.store import Corpus, CorpusError, Segment
from mechanism.corpus.tokenizer import load_tokenizer
from mechanism.models.load import load_model
from mechanism.models.passes import encode
from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.variants import VariantConfig
from mechanism.study.base.token_routes import LEVELS, SAMPLE, routed_generation, sentence_rows, token_routes
from mechanism.trace import DenseModelError, attach
from mechanism.trace.families import tiny_model

TEXTS = ["In the beginning God created the heavens and the earth.", "Click OK.", "Öffnet das Fenster Ausrichtung."]
GENERATED = 5


@pytest.fixture(scope="module", params=["tiny", "deepseek_v3", "gpt_oss"])
def loaded(request):
    """The committed tiny model, one whose first layer is dense and whose weights exceed 1, and one with biases."""
    if request.param == "tiny":
        return load_model("tiny", "cpu")
    tokenizer = load_tokenizer(DATA / "tokenizer")
    return tiny_model(request.param, vocab_size=len(tokenizer), max_position_embeddings=256), tokenizer


@torch.no_grad()
def plain(model, ids, generated=GENERATED):
    """Tokens, phases, experts and weights of one text without padding: each token that the model says is the likeliest
    is passed alone, on the cache of those before; up to the end of the text, which also opens it."""
    given, cache, tokens, taken = torch.tensor([ids]), None, list(ids), []
    with attach(model) as trace:
        for _ in range(generated + 1):
            out = model(input_ids=given, past_key_values=cache, use_cache=True)
            given, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            tokens.append(int(given))
    for record in trace.records:
        layers = [record.layers[layer] for layer in sorted(record.layers)]
        index, weight = (np.stack([getattr(own, name)[0] for own in layers], 1) for name in ("index", "weight"))
        taken += [(record.at.phase, *one) for one in zip(index, weight, strict=True)]
    made = tokens[len(ids) : -1]
    own = slice(1, len(ids) + (made.index(ids[0]) if ids[0] in made else len(made)))
    return tokens[own], [one[0] for one in taken[own]], *(np.stack([one[i] for one in taken[own]]) for i in (1, 2))


def test_routes_are_those_of_each_text_alone_and_of_greedy_decoding(loaded):
    model, tokenizer = loaded
    found = routed_generation(model, tokenizer, TEXTS, GENERATED)
    for one, ids in zip(found, encode(tokenizer, TEXTS), strict=True):
        tokens, phases, index, weight = plain(model, ids)
        assert one.token.tolist() == tokens
        assert phases == ["prefill"] * one.read + ["decode"] * (len(tokens) - one.read)
        assert one.decoded
        np.testing.assert_array_equal(one.index, index)
        np.testing.assert_allclose(one.weight, weight, atol=1e-5)
    assert any(len(one.token) > one.read for one in found)


def test_generation_stops_where_the_model_ends_the_text(monkeypatch):
    model, tokenizer = load_model("tiny", "cpu")
    (whole,) = routed_generation(model, tokenizer, TEXTS[:1], GENERATED)
    made = whole.token[whole.read :].tolist()
    end = made[2]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [tokenizer.eos_token_id, end])
    cut, other = routed_generation(model, tokenizer, TEXTS[:2], GENERATED)
    assert cut.token[cut.read :].tolist() == made[: made.index(end)]
    assert cut.read == whole.read
    np.testing.assert_array_equal(cut.index, whole.index[: len(cut.token)])
    assert end not in other.token[other.read :]


def test_a_dense_model_is_refused():
    model = VariantConfig(DenseConfig(16, 32), vocab=12288, layers=1, heads=2, head_dim=8, context=64).build().eval()
    with pytest.raises(DenseModelError):
        routed_generation(model, load_tokenizer(DATA / "tokenizer"), TEXTS)


def corpus(columns, split="test"):
    rows = [Segment(str(i), "g", split) for i in range(len(next(iter(columns.values()))))]
    return Corpus("own", "own", rows, columns)


COLUMNS = {
    "de": ["Öffnen.", "Klicken Sie auf OK.", "", "Das Fenster ist offen."],
    "en": ["Open the file.", "Click OK.", "No translation.", "The window is open."],
}


def test_sentences_are_the_shortest_that_most_languages_have():
    assert sentence_rows(corpus(COLUMNS), ["de", "en"], 2) == ([0, 1], [0, 1, 3])
    assert sentence_rows(corpus(COLUMNS), ["en"], 2) == ([0, 1], [0, 1, 2, 3])
    assert sentence_rows(corpus(COLUMNS, "train"), ["de", "en"], 9)[0] == [0, 1, 3]
    many = corpus({"en": ["word"] * 100})
    assert len(sentence_rows(many, ["en"], 3)[1]) == SAMPLE
    with pytest.raises(CorpusError, match="has no segment in de"):
        sentence_rows(corpus({"de": ["", ""], "en": ["a", "b"]}), ["de"], 2)


def test_the_record_says_in_whole_numbers_what_was_captured(loaded):
    model, tokenizer = loaded
    found = token_routes(model, tokenizer, corpus(COLUMNS), ["de"], sentences=2, generated=GENERATED)
    assert list(found["texts"]) == ["de", "en"], "the language that others are compared with is always there"
    assert found["titles"] == ["Open the file.", "Click OK."]
    layers, slots = len(found["layers"]), found["slots"]
    for code, own in found["texts"].items():
        for text, one in zip(corpus(COLUMNS).texts(code, (0, 1)), own, strict=True):
            (ids,) = encode(tokenizer, [text])
            _, phases, index, weight = plain(model, ids)
            assert one["n"] == len(ids) - 1 == phases.count("prefill")
            assert all(isinstance(value, int) for name in "tew" for value in one[name])
            np.testing.assert_array_equal(np.reshape(one["e"], (-1, layers, slots)), index)
            written = np.reshape(one["w"], (-1, layers, slots)) * found["scale"] / LEVELS
            np.testing.assert_allclose(written, weight, atol=found["scale"] / LEVELS)
            said = "".join(found["tokens"][token] for token in one["t"][: one["n"]])
            assert said.replace("·", " ") == text
    largest = max(max(one["w"]) for own in found["texts"].values() for one in own)
    assert largest == LEVELS, "weights use all levels"
    for code in ("de", "en"):
        assert len(found["rates"][code]) == len(found["words"][code]) == layers * found["experts"]
        assert sum(found["rates"][code]) == pytest.approx(1000 * layers * slots, abs=layers * found["experts"])


def test_a_sentence_that_a_language_lacks_is_none():
    model, tokenizer = load_model("tiny", "cpu")
    columns = {**COLUMNS, "sw": ["Fungua faili.", "", "", ""], "de": ["", "Klicken.", "", ""]}
    found = token_routes(model, tokenizer, corpus(columns), sentences=2, generated=1)
    lacking = {code: [one is None for one in own] for code, own in found["texts"].items()}
    assert lacking == {"de": [True, False], "en": [False, False], "sw": [False, True]}


def test_a_language_that_is_not_there_is_named():
    model, tokenizer = load_model("tiny", "cpu")
    with pytest.raises(CorpusError, match="has no language 'fr'"):
        token_routes(model, tokenizer, corpus(COLUMNS), ["fr"])
