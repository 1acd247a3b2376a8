import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanism.corpus.reader import load_folder, load_table
from mechanism.corpus.store import (
    Corpus,
    CorpusError,
    Segment,
    compress,
    decode_index,
    decode_lines,
    encode_index,
    encode_lines,
    read_payload,
)

lines = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="␤\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=30),
    min_size=1,
)


@given(lines)
def test_lines_round_trip(texts):
    assert decode_lines(encode_lines(texts)) == texts


def test_reserved_mark_is_refused():
    with pytest.raises(CorpusError, match="reserved"):
        encode_lines(["a␤b"])


def test_index_round_trip():
    rows = [Segment("1", "g\t1", "train"), Segment("2", 'g"2', "test")]
    assert decode_index(encode_index(rows)) == rows


def test_folder_of_a_user(tmp_path):
    (tmp_path / "en.txt").write_text("hello\nworld\n", "utf-8")
    (tmp_path / "sw.txt").write_text("habari\nulimwengu\n", "utf-8")
    corpus = load_folder(tmp_path)
    assert corpus.languages == ("en", "sw")
    assert corpus.parallel("test", ("en", "sw")) == [0, 1]
    assert corpus.texts("sw", [1]) == ["ulimwengu"]


def test_table_of_a_user(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("id\tsplit\ten\tsw\na\tdev\thello\thabari\nb\ttest\tworld\t\n", "utf-8")
    corpus = load_table(path)
    assert corpus.split("dev") == [0]
    assert corpus.parallel("test", ("en", "sw")) == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is empty: it should hold one <language>.txt"),
        ({"en.txt": "\n\n"}, "en.txt is empty"),
        ({"en.txt": "a\nb\n", "sw.txt": "c\n"}, "misaligned: lines per file are en 2, sw 1"),
    ],
)
def test_bad_folders(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(CorpusError, match=message):
        load_folder(tmp_path)


def test_missing_folder_and_language():
    with pytest.raises(CorpusError, match="no corpus folder at"):
        load_folder(Path("/nowhere/at/all"))
    corpus = Corpus("c", "c", [Segment("0", "g", "test")], {"en": ["a"]})
    with pytest.raises(CorpusError, match="has no language 'xx'; it has en"):
        corpus.texts("xx", [0])


def test_damaged_compression_is_named(tmp_path):
    path = tmp_path / "en.txt.xz"
    path.write_bytes(compress(b"hello")[:-9])
    with pytest.raises(CorpusError, match=r"en\.txt\.xz is corrupted"):
        read_payload(path)
    path.write_bytes(lzma.compress(b"hello"))
    assert read_payload(path) == b"hello"
