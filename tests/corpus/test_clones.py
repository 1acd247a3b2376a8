"""Clones: laws of the languages and of the stream, and what cannot be."""

from typing import Any

import numpy as np
import pytest

from mechanism.corpus.clones import CloneConfig, CloneStream, CloneTokenizer, SkillStream, as_clone, clone_ids
from mechanism.corpus.library import DATA
from mechanism.corpus.mixture import Column
from mechanism.corpus.tokenizer import load_tokenizer

SHARES = (1.0, 0.5, 0.1, 0.0)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(DATA / "tokenizer_english")


@pytest.fixture(scope="module")
def columns() -> dict:
    """Sixty documents of six rows; every token of row r is 1 + r, so that rows can be told apart."""
    offsets = np.arange(0, 360 * 10 + 1, 10)
    tokens = np.repeat(np.arange(1, 361, dtype=np.int32), 10)
    return {("tech", "en"): Column(tokens, offsets, np.arange(360), np.arange(360) // 6)}


def made(tokenizer, columns, room: int = 4096, **changes: Any) -> CloneStream:
    return CloneStream(CloneConfig(**{"shares": SHARES, **changes}), tokenizer, columns, room)


def language(ids: np.ndarray) -> np.ndarray:
    return ids // 1024


def test_every_clone_is_a_permutation_into_a_range_of_its_own():
    found = clone_ids(CloneConfig(SHARES), 1024, 4096)
    assert (found[:, 0] == 0).all()
    assert (found[0] == np.arange(1024)).all()
    for k in (1, 2, 3):
        assert len(set(found[k])) == 1024
        assert (language(found[k][1:]) == k).all()
        assert (np.diff(found[k][1:]) < 0).any()


@pytest.mark.parametrize(("shared", "common"), [(0.0, 1), (0.25, 257), (1.0, 1024)])
def test_so_many_ids_are_common_to_all(shared: float, common: int):
    found = clone_ids(CloneConfig(SHARES, shared=shared), 1024, 4096)
    assert ((found == found[0]).all(0)).sum() == common


def test_a_batch_is_a_function_of_seed_and_step(tokenizer, columns):
    first, again = made(tokenizer, columns), made(tokenizer, columns)
    batch = first.batch(3, 5, 4, 64)
    assert batch.shape == (4, 65)
    first.batch(3, 6, 4, 64)
    assert (again.batch(3, 5, 4, 64) == batch).all()
    assert (again.batch(4, 5, 4, 64) != batch).any()


def test_a_clone_of_identical_ids_is_english(tokenizer, columns):
    one = made(tokenizer, columns, shared=1.0)
    text = ["A clone of identical ids."]
    assert one.tokenizer_of(2)(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert one.batch(0, 0, 16, 128).max() <= 360


def test_a_tokenizer_of_a_clone_permutes_ids_and_reads_them_back(tokenizer, columns):
    stream, text = made(tokenizer, columns), "Merge by merge, as in English."
    own, english = stream.tokenizer_of(2), tokenizer(text)["input_ids"]
    assert own(text)["input_ids"] == stream.ids[2, english].tolist()
    assert own.decode(own(text)["input_ids"]) == text
    assert own.eos_token_id == own.pad_token_id == 0


def test_documents_are_in_one_language_or_alternate_english_and_a_clone(tokenizer, columns):
    stream = made(tokenizer, columns, bilingual=0.5)
    rng, kinds = np.random.default_rng(0), []
    for _ in range(200):
        kind, ids = stream._document(rng, 1000)
        rows = language(ids[1:]).reshape(-1, 10)
        assert (rows == rows[:, :1]).all()
        spoken = rows[:, 0]
        if kind == "bilingual":
            assert 0 in spoken[:2]
            assert (spoken[::2] == spoken[0]).all()
            assert (spoken[1::2] == spoken[1]).all()
            lookup = [  # back to English: each row twice
                dict(zip(stream.ids[k].tolist(), range(1024), strict=True)) for k in spoken[:2]
            ]
            english = [lookup[i % 2][int(row[0])] for i, row in enumerate(ids[1:].reshape(-1, 10))]
            assert english[::2] == english[1::2]
        else:
            assert len(set(spoken)) == 1
        kinds.append(kind)
    assert 0.35 < kinds.count("bilingual") / 200 < 0.65


def test_tokens_follow_shares_and_an_unread_clone_is_never_seen(tokenizer, columns):
    alone = made(tokenizer, columns, bilingual=0.0).tokens_read(0, 1600)
    np.testing.assert_allclose(alone / 1000, SHARES, atol=0.06)
    both = made(tokenizer, columns, bilingual=1.0).tokens_read(0, 1200)
    np.testing.assert_allclose(both, [600, 500, 100, 0], atol=40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": (1.0, 1.5)}, "1.5 is no share"),
        ({"bilingual": -0.1}, "-0.1 is no share"),
        ({"shared": 2.0}, "2.0 is no share"),
        ({"shares": (0.0, 1.0)}, "English is never read"),
        ({"shares": ()}, "English is never read"),
        ({"shares": (1.0, 0.0)}, "need a clone that is read"),
        ({"shares": (1.0,) * 5}, "4 clones of 1024 ids each need 5120 rows of the vocabulary, which has 4096"),
    ],
)
def test_languages_that_cannot_be_are_refused(tokenizer, columns, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        made(tokenizer, columns, **changes)


def test_an_unknown_language_is_refused(tokenizer, columns):
    with pytest.raises(ValueError, match="no language 4: English is 0, its clones go to 3"):
        made(tokenizer, columns).tokenizer_of(4)


def test_word_problems_are_in_english_alone_or_in_every_language_that_is_read(tokenizer, columns):
    given = CloneConfig(SHARES), tokenizer, columns, 4096
    plain, alone, all_ = (
        SkillStream(*given, problems=share, everywhere=everywhere)
        for share, everywhere in ((0.0, False), (1.0, False), (1.0, True))
    )
    assert set(np.unique(language(alone.batch(0, 0, 16, 64)))) == {0}
    assert set(np.unique(language(all_.batch(0, 0, 64, 256)))) == {0, 1, 2}
    assert " =" in tokenizer.decode(alone.batch(0, 0, 1, 128)[0])
    assert plain.shares(batches=2)["problems"] == 0
    with pytest.raises(ValueError, match=r"1\.5 is no share"):
        SkillStream(*given, problems=1.5)


@pytest.mark.parametrize("shared", [0.0, 0.25, 1.0])
def test_one_tokenizer_reads_all_languages(tokenizer, columns, shared: float):
    stream = made(tokenizer, columns, shared=shared)
    reader, text = CloneTokenizer(tokenizer, stream.ids), "Anna buys 7 boxes.\nHow many? = 42"
    for k in range(4):
        own = stream.tokenizer_of(k)(text)["input_ids"]
        assert reader(as_clone(text, k), add_special_tokens=False)["input_ids"] == own
        assert reader([as_clone(text, k), "a"])["input_ids"] == [own, tokenizer("a")["input_ids"]]
        if shared == 0:
            assert reader.decode([*own, 0], skip_special_tokens=True) == as_clone(text, k)
    assert reader.decode(reader(text)["input_ids"]) == text
    assert reader([])["input_ids"] == []
    assert reader.eos_token_id == tokenizer.eos_token_id == 0


def test_an_answer_in_another_language_is_not_the_answer(tokenizer, columns):
    reader = CloneTokenizer(tokenizer, made(tokenizer, columns).ids)
    mixed = [*reader(as_clone("4", 1))["input_ids"], *reader("2")["input_ids"]]
    assert reader.decode(mixed) == as_clone("4", 1) + "\ue0002"


def test_a_mark_of_no_language_is_refused(tokenizer, columns):
    reader = CloneTokenizer(tokenizer, made(tokenizer, columns).ids)
    with pytest.raises(ValueError, match="there is no language 4: the clones go to 3"):
        reader(as_clone("a", 4))
