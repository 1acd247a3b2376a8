from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mechanism.corpus.library import committed
from mechanism.corpus.store import Corpus, CorpusError, Segment
from mechanism.measure.statistics import ClusterBootstrap
from mechanism.models.load import ModelError, load_model
from mechanism.models.passes import encode
from mechanism.models.segments import segment_pass
from mechanism.study.base.texts import RoutingConfig, pivot_of
from mechanism.study.r_multilingual.observe import observe, read, script_of
from mechanism.study.r_multilingual.profiles import LanguageProfiles
from mechanism.study.r_multilingual.quality import quality

PROFILES = LanguageProfiles(ClusterBootstrap(n_boot=200))
CODES = ("en", "de", "km")


@pytest.fixture(scope="module")
def found() -> xr.Dataset:
    model, tokenizer = load_model("tiny", "cpu")
    return observe(model, tokenizer, committed("tech"), RoutingConfig(CODES, max_segments=16))


def test_observation_of_a_model(found: xr.Dataset):
    assert list(found["lang"].values) == list(CODES)
    assert found.sizes["layer"] == 4
    assert np.allclose(found["importance"].sum("expert").values[:2], 1, atol=1e-4)
    assert (found["divergence"].sel(lang="en") == 0).all()
    assert ((found["divergence"].sel(lang="de") > 0) & (found["divergence"].sel(lang="de") < 1)).all()
    assert ((found["consistency"].sel(lang="de") > 0) & (found["consistency"].sel(lang="de") <= 1)).all()
    assert (found["hits"].sel(lang="en") == 1).all()


def test_missing_segments_are_nan_not_zero(found: xr.Dataset):
    texts = committed("tech").columns["km"]
    missing = found["nll"].sel(lang="km").isnull().values
    assert missing.sum() == sum(not texts[i] for i in RoutingConfig(CODES, max_segments=16).rows(committed("tech")))
    for name in ("divergence", "importance", "consistency", "hits"):
        own = found[name].sel(lang="km").isnull().values.reshape(len(missing), -1)
        assert (own.any(1) == missing).all()


def test_tables_over_the_observation(found: xr.Dataset):
    layers = PROFILES.by_layer(found, "divergence").set_index(["lang", "layer"])
    assert (layers["low"] <= layers["value"]).all()
    table = quality(found)
    assert set(table.index) == {"de", "km"}
    assert (table["relative_loss"] > 1).all()
    assert table.loc["km", "script"] == "Khmr"


def test_consistency_counts_every_language_at_the_shortest_length(found: xr.Dataset):
    """A causal model routes the first tokens of a text as it routes them alone."""
    model, tokenizer = load_model("tiny", "cpu")
    short, long = "the people of the city", "the people of the city came out to meet him"
    cut = len(encode(tokenizer, [short])[0]) - 1
    assert encode(tokenizer, [long])[0][: cut + 1] == encode(tokenizer, [short])[0]
    alone = segment_pass(model, tokenizer, [short], consistency=True).consistency
    assert segment_pass(model, tokenizer, [long], consistency=True, cut=[cut]).consistency == pytest.approx(alone)
    assert np.isnan(segment_pass(model, tokenizer, [long], consistency=True, cut=[1]).consistency).all()


def test_hidden_distance_and_overlap_are_those_of_a_pair(found: xr.Dataset):
    assert found["distance"].sel(lang="en").values == pytest.approx(0, abs=1e-5)
    assert (found["distance"].sel(lang="de").mean("segment").values > 0.01).all()
    assert float(found["overlap"].sel(lang="en")) == pytest.approx(1)
    assert 0 < float(found["overlap"].sel(lang="km")) < float(found["overlap"].sel(lang="de")) < 1
    assert found["frequency"].sum("expert").sel(lang="de").values == pytest.approx(2, abs=1e-5)


def test_too_little_text_and_languages_that_are_not_there():
    model, tokenizer = load_model("tiny", "cpu")
    with pytest.raises(CorpusError, match="no language 'xx'"):
        observe(model, tokenizer, committed("tech"), RoutingConfig(("xx",), max_segments=12))
    with pytest.raises(CorpusError, match="needs 10"):
        RoutingConfig(split="dev", max_segments=12).rows(few(5))
    with pytest.raises(CorpusError, match="of which 9 may be read; a profile needs 10"):
        RoutingConfig(max_segments=9).rows(committed("tech"))


def test_a_language_with_too_little_text_is_named_with_its_reason():
    model, tokenizer = load_model("tiny", "cpu")
    corpus = few(12)
    assert isinstance(corpus.columns, dict)
    corpus.columns["de"][3:] = [""] * 9
    corpus.columns["fr"][:] = [""] * 12
    with pytest.raises(CorpusError, match=r"nothing to compare with 'en' \(de: 3 segments, a profile needs 10; fr: 0 "):
        observe(model, tokenizer, corpus, RoutingConfig(split="dev"))
    corpus.columns["it"] = list(corpus.columns["en"])
    found = observe(model, tokenizer, corpus, RoutingConfig(split="dev"))
    assert list(found["lang"].values) == ["en", "it"]
    assert set(found.attrs["left_out"]) == {"de", "fr"}
    assert (found["divergence"].sel(lang="it") == 0).all(), "the same text twice"


def words(*known: str) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that knows only these."""
    vocabulary = {word: i for i, word in enumerate(("<unk>", "<eos>", *known))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>")


def test_a_script_that_the_tokenizer_does_not_know_is_a_reason():
    tokenizer = words("hello", "world")
    assert read(tokenizer, ["hello world"] * 12, 20).problem == ""
    assert read(tokenizer, ["привет мир"] * 12, 20).problem == "the tokenizer knows less than half of the text"
    assert read(tokenizer, ["hello"] * 12 + [""], 20).present.tolist() == list(range(12))
    long = read(tokenizer, ["hello " * 30] * 12, 20)
    assert long.problem == "0 segments give between 1 and 20 tokens, a profile needs 10"
    assert "0 segments give between" in read(tokenizer, [" "] * 12, 20).problem


def test_a_tokenizer_without_a_token_to_open_with():
    tokenizer = words("hello")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no token to open a text with"):
        encode(tokenizer, ["hello"])


def test_a_dense_model_has_nothing_to_observe():
    config = LlamaConfig(
        vocab_size=12288, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=8
    )
    with pytest.raises(ModelError, match="routes nowhere"):
        observe(LlamaForCausalLM(config).eval(), load_model("tiny", "cpu")[1], few(12), RoutingConfig(split="dev"))


def test_english_is_the_pivot_wherever_it_stands():
    rows = [Segment("0", "a", "test")]
    assert pivot_of(Corpus("c", "c", rows, {"de": ["a"], "en": ["b"]})) == "en"
    assert pivot_of(Corpus("c", "c", rows, {"deu_Latn": ["a"], "eng_Latn": ["b"]})) == "eng_Latn"
    assert pivot_of(Corpus("c", "c", rows, {"fr": ["a"], "de": ["b"]})) == "fr"


def test_scripts_follow_from_codes():
    assert [script_of(code) for code in ("sw", "fa", "zho_Hans", "xx", "not a code")] == [
        "Latn",
        "Arab",
        "Hans",
        None,
        None,
    ]


def few(size: int) -> Corpus:
    corpus = committed("tech")
    kept = corpus.parallel("dev", ("en", "de", "fr"))[:size]
    columns = {code: [corpus.columns[code][i] for i in kept] for code in ("en", "de", "fr")}
    return replace(corpus, name="few", rows=[corpus.rows[i] for i in kept], columns=columns)
