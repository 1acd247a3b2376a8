import numpy as np
import pytest

from mechanism.corpus.languages import TRAINED
from mechanism.corpus.library import DATA, committed, training_budgets, training_rows
from mechanism.corpus.mixture import Mixture, MixtureConfig
from mechanism.corpus.tokenizer import END_OF_TEXT, load_tokenizer, train_tokenizer

FEW = ("hi", "fa", "om", "km", "ko")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DATA / "tokenizer")


@pytest.fixture(scope="module")
def mixture(tokenizer):
    return Mixture(MixtureConfig(languages=FEW), tokenizer)


def test_tokenizer_is_lossless_and_cuts_digits_singly(tokenizer):
    assert 8_000 <= len(tokenizer) <= 16_384
    for text in ("Anna buys 12 apples.\n", "ភាសាខ្មែរ", "यह किताब", "x = {1: 'ü'}\n\n\treturn"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("=1234")[1:] == ["1", "2", "3", "4"]


def test_tokenizer_keeps_combining_marks_with_their_word():
    trained = train_tokenizer(["किताब किताब"] * 50, vocab_size=300)
    assert len(trained.tokenize("किताब")) == 1


def test_a_batch_is_a_function_of_seed_and_step(mixture):
    first = mixture.batch(0, 3, 4, 64)
    assert first.shape == (4, 65)
    assert (first == mixture.batch(0, 3, 4, 64)).all()
    assert (first != mixture.batch(0, 4, 4, 64)).any()
    assert (first != mixture.batch(1, 3, 4, 64)).any()


def test_nothing_of_dev_or_test_is_read(mixture):
    for (name, code), column in mixture.columns.items():
        corpus = committed(name)
        assert {corpus.rows[i].split for i in column.rows} == {"train"}
        empty = np.diff(column.offsets) == 0
        assert empty[np.setdiff1d(np.arange(len(corpus.rows)), column.rows)].all(), code


@pytest.mark.parametrize("code", TRAINED)
def test_rows_of_every_language_are_of_the_training_split(code: str):
    for name, budget in training_budgets(code).items():
        corpus = committed(name)
        assert {corpus.rows[i].split for i in training_rows(corpus, code, budget)} == {"train"}


def test_shares_are_what_the_configuration_asks(mixture, tokenizer):
    shares = mixture.shares(batches=8)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["bilingual"] == pytest.approx(0.45, abs=0.12)
    assert 0.04 < shares["problems"] < 0.12
    control = Mixture(MixtureConfig(languages=FEW, bilingual=0.0), tokenizer, mixture.columns)
    assert control.shares(batches=4)["bilingual"] == 0


def test_every_sequence_opens_with_end_of_text(mixture, tokenizer):
    assert (mixture.batch(0, 0, 8, 64)[:, 0] == tokenizer.convert_tokens_to_ids(END_OF_TEXT)).all()
