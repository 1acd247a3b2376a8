import unicodedata

from mechanism.corpus.text import from_html, leaking_rows, near_duplicates, nfc, shingles


def test_nfc_composes_and_drops_invisible_marks():
    decomposed = unicodedata.normalize("NFD", "tiếng Việt")
    assert nfc(decomposed) == "tiếng Việt" != decomposed
    assert nfc("a\u200eb\ufeff") == "ab"


def test_html_becomes_one_line():
    assert from_html("<p>a <b>b</b>&amp;\n c</p>") == "a b & c"


def test_near_duplicates_need_one_single_source():
    whole = "one two three four five six seven eight"
    assert near_duplicates(["ONE two, three four five six!"], [whole]) == {0}
    halves = ["one two three four nine ten", "five six seven eight nine ten"]
    assert near_duplicates(["one two three four alpha beta gamma five six seven eight"], halves) == set()


def test_scripts_without_spaces_are_compared_by_character():
    assert len(shingles("私は本を読みます")) > 3
    assert near_duplicates(["私は本を読みます"], ["昨日私は本を読みました"]) == {0}


def test_leaks_are_found_in_any_language_and_never_in_train():
    columns = {"en": ["a b c d e", "x y z w v", "p q r s t"], "de": ["k l m n o", "k l m n o", "f g h i j"]}
    assert leaking_rows(columns, ["train", "test", "dev"]) == {1}
    assert leaking_rows({"en": ["", ""]}, ["train", "test"]) == set()
