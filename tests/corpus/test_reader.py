"""Parallel text as people have it: every layout is read as what it is, or refused in a sentence."""

import csv
import io
import lzma
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mechanism.corpus.hub import flores_code
from mechanism.corpus.languages import LANGUAGES
from mechanism.corpus.reader import language_of, load_folder, load_table
from mechanism.corpus.store import CorpusError

ENGLISH, GERMAN = "Open.\n\nClose.\n", "Öffnen.\n\nSchließen.\n"


def folder(at: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        (at / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return at


def table(at: Path, name: str, content: str | bytes) -> Path:
    return folder(at, {name: content}) / name


@pytest.mark.parametrize("code", LANGUAGES)
def test_codes_of_flores_and_iso_are_those_of_the_report(code):
    assert language_of(code) == language_of(flores_code(code)) == language_of(code.upper()) == code


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("pt", "pt"),
        ("por_Latn", "pt"),
        ("pt_BR", "pt-BR"),
        ("zho_Hant", "zh-Hant"),
        ("cmn_Hans", "zh"),
        ("nob_Latn", "nb"),
        ("srp_Latn", "sr-Latn"),
        ("no", "no"),
        ("yue_Hant", "yue"),
        ("uzn_Latn", "uz"),
        (" en ", "en"),
        ("ydd_Hebr", "yi"),
    ],
)
def test_other_codes(name, code):
    assert language_of(name) == code


@pytest.mark.parametrize(
    "name", ["README", "LICENSE", "Corpus", "url", "topic", "domain", "has_image", "", "xx", "de-en"]
)
def test_what_names_no_language(name):
    assert language_of(name) is None


@pytest.mark.parametrize(
    "german",
    [
        GERMAN,
        GERMAN.replace("\n", "\r\n"),
        GERMAN.replace("\n", "\r"),
        "\ufeff" + GERMAN,
        GERMAN.encode("utf-16"),
        GERMAN.rstrip("\n"),
        GERMAN + "\n\n",
        GERMAN.replace("\n\n", "\n \t\u200b\u00a0\n"),
    ],
    ids=["plain", "crlf", "cr", "bom", "utf-16", "no last line end", "blank lines at the end", "invisible gap"],
)
def test_line_ends_encodings_and_gaps(tmp_path, german):
    corpus = load_folder(folder(tmp_path, {"en.txt": ENGLISH, "de.txt": german}))
    assert corpus.columns == {"de": ["Öffnen.", "", "Schließen."], "en": ["Open.", "", "Close."]}
    assert corpus.parallel("test", ("en", "de")) == [0, 2]
    assert corpus.told == ("de: de.txt, test, 3 rows, 1 of them gaps", "en: en.txt, test, 3 rows, 1 of them gaps")


@pytest.mark.parametrize(
    "names",
    [
        ("eng_Latn.devtest", "deu_Latn.devtest"),
        ("Corpus.en.txt", "Corpus.de.txt"),
        ("en.txt.xz", "de"),
        ("EN.TXT", "de.tok"),
        ("europarl-v7.de-en.en", "europarl-v7.de-en.de"),
        ("test.en.txt", "de.test.txt"),
    ],
)
def test_names_of_files(tmp_path, names):
    packed = {name: lzma.compress(text.encode()) if name.endswith("xz") else text
              for name, text in zip(names, (ENGLISH, GERMAN), strict=True)}  # fmt: skip
    corpus = load_folder(
        folder(tmp_path, {**packed, "README.txt": "one\n\nthree\n", "._en.txt": b"\0\5", "de.txt.gz": b"."})
    )
    assert {code: texts[0] for code, texts in corpus.columns.items()} == {"en": "Open.", "de": "Öffnen."}
    assert any("README.txt is left out: its name has no language" in line for line in corpus.told)
    assert any("de.txt.gz is left out: it is packed" in line for line in corpus.told)


def test_a_file_for_each_language_and_split(tmp_path):
    files = {
        "en.train": "a\nb\n",
        "de.train": "x\ny\n",
        "en.validation": "c\n",
        "en.devtest": "d\ne\n",
        "de.devtest": "z\n\n",
    }
    corpus = load_folder(folder(tmp_path, files))
    assert [corpus.split(name) for name in ("train", "dev", "test")] == [[0, 1], [2], [3, 4]]
    assert corpus.columns == {"de": ["x", "y", "", "z", ""], "en": ["a", "b", "c", "d", "e"]}


@pytest.mark.parametrize(
    ("index", "split"),
    [
        ("id\tgroup\tsplit\n0\tg\tdevtest\n1\tg\tdevtest\n", "test"),
        ("\ufeffid\tgroup\tsplit\n0\tg\tvalid\n1\tg\tdev\n", "dev"),
        ("id\tsplit\n0\ttest\n1\ttest\n", "test"),
        ("id\tgroup\n0\tg\n1\tg\n", "test"),
    ],
)
def test_an_index(tmp_path, index, split):
    corpus = load_folder(folder(tmp_path, {"en.txt": "a\nb\n", "index.tsv": index}))
    assert corpus.split(split) == [0, 1]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"en.txt": ENGLISH, "en.txt.xz": lzma.compress(b"x\n")},
            r"two files for en, en\.txt and en\.txt\.xz",
        ),
        ({"en.txt": ENGLISH, "eng_Latn.txt": ENGLISH}, "two files for en"),
        ({"en.txt": ENGLISH, "de.txt": GERMAN.encode("latin-1")}, r"de\.txt is no UTF-8 \(line 1\): convert it"),
        ({"en.txt": ENGLISH.encode("utf-16-le")}, "null bytes"),
        ({"en.txt": "a\nb\n", "de.txt": "x\n"}, "misaligned: lines per file are de 1, en 2"),
        ({"en.txt": "a\nb\n", "index.tsv": "id\n0\n"}, "misaligned: lines per file are en 2, rows of the index 1"),
        ({"en.txt": "a\n", "index.tsv": "id\n0\n1\n"}, "misaligned: lines per file are en 1, rows of the index 2"),
        ({"en.txt": "a\n", "index.tsv": "id\tsplit\n0\tholdout\n"}, "split 'holdout'; known are train, training"),
        ({"README.txt": "a\n"}, r"is empty: .*README\.txt is left out"),
        ({"en.txt": " \n\u200b\n"}, r"en\.txt is empty"),
    ],
)
def test_folders_that_are_refused(tmp_path, files, said):
    with pytest.raises(CorpusError, match=said):
        load_folder(folder(tmp_path, files))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "en,de\nHello,Hallo\nBye,Tschüss\n"),
        ("t.csv", "en;de\nHello;Hallo\nBye;Tschüss\n"),
        ("t.csv", "en\tde\nHello\tHallo\nBye\tTschüss\n"),
        ("t.csv", ",en,de\n0,Hello,Hallo\n1,Bye,Tschüss\n"),
        ("T.CSV", "en, de\nHello, Hallo\nBye, Tschüss\n"),
        ("t.csv", '"en","de"\r\n"Hello","Hallo"\r\n"Bye","Tschüss"\r\n'),
        ("t.csv", "en,de\nHello,Hallo\n\nBye,Tschüss\n".encode("utf-16")),
        ("t.tsv", "\ufeffeng_Latn\tdeu_Latn\nHello\tHallo\nBye\tTschüss\n"),
        ("t.tsv.xz", lzma.compress("en\tde\nHello\tHallo\nBye\tTschüss\n".encode())),
        ("t.csv", "id,split,url,en,topic,de\n7,devtest,http://a,Hello,x,Hallo\n8,test,http://b,Bye,y,Tschüss\n"),
    ],
)
def test_tables(tmp_path, name, content):
    corpus = load_table(table(tmp_path, name, content))
    assert corpus.columns == {"en": ["Hello", "Bye"], "de": ["Hallo", "Tschüss"]}
    assert corpus.split("test") == [0, 1]


def test_what_is_no_language_is_named(tmp_path):
    content = "url,en,topic,has_image,de,\nhttp://a,Hello,x,no,Hallo,0\n"
    corpus = load_table(table(tmp_path, "t.csv", content))
    assert corpus.languages == ("en", "de")
    assert corpus.told[-1] == "left out, no languages: url, topic, has_image, (no name)"


def test_quotation_marks_of_a_text_are_its_own(tmp_path):
    content = 'en\tde\n"Hello" she said\t"Hallo", sagte sie\nHe said "no\tEr sagte "nein\n'
    corpus = load_table(table(tmp_path, "t.tsv", content))
    assert corpus.columns["en"] == ['"Hello" she said', 'He said "no']
    assert corpus.columns["de"] == ['"Hallo", sagte sie', 'Er sagte "nein']


TEXTS = st.text(st.sampled_from('ab ,;\t|"\n.ä'), min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.sampled_from([",", ";", "\t"]))
def test_what_a_spreadsheet_writes_is_read_back(tmp_path_factory, rows, delimiter):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("en", "de"), *rows])
    path = table(tmp_path_factory.mktemp("t"), "t.csv", out.getvalue())
    assert load_table(path).columns == {"en": [one for one, _ in rows], "de": [other for _, other in rows]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("en,de\nHello, world,Hallo Welt\n", "row 2 of .* has 3 fields, its header 2"),
        ("en,de\nHello\n", "row 2 of .* has 1 fields, its header 2"),
        ("en,eng_Latn\nHello,Hi\n", "two columns for en: en, eng_Latn"),
        ("en,en\nHello,Hi\n", "two columns for en"),
        ("id,en\n1,Hello\n1,Bye\n", "id '1' twice"),
        ("split,en\nholdout,Hello\n", "split 'holdout'"),
        ("Janet has 3 eggs.,3\nBob has 2.,2\n", "no column of .* is a language: its first line reads Janet has 3 eggs"),
        ("", "is empty"),
        ("en,de\n", "is empty"),
        ("en,de\nHe\0llo,Hallo\n", "null bytes"),
        ("en\n" + "é\n".encode("latin-1").decode("latin-1"), ""),
    ],
)
def test_tables_that_are_refused(tmp_path, content, said):
    path = table(tmp_path, "t.csv", content)
    if not said:
        assert load_table(path).columns["en"] == ["é"]
        return
    with pytest.raises(CorpusError, match=said):
        load_table(path)


def test_a_very_long_field(tmp_path):
    long = "word " * 60_000
    corpus = load_table(table(tmp_path, "t.csv", f'en,de\n"{long.strip()}",kurz\n'))
    assert len(corpus.columns["en"][0]) == len(long) - 1
