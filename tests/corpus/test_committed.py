"""The committed corpora themselves."""

import json
import shutil
import unicodedata

import numpy as np
import pytest

from mechanism.corpus import library
from mechanism.corpus.build import RECIPES, check_file, read_manifest, verify
from mechanism.corpus.extract import RELIGION_EDITIONS
from mechanism.corpus.languages import LANGUAGES, TRAINED, UNKNOWN, language
from mechanism.corpus.library import DOMAINS, PARALLEL, ROOT, committed, load, training_budgets, training_rows
from mechanism.corpus.store import CorpusError

NAMES = (*PARALLEL, *DOMAINS)


def test_every_file_matches_its_hash():
    assert len(verify(ROOT)) == sum(len(entry["files"]) for entry in read_manifest(ROOT).values())
    assert set(read_manifest(ROOT)) == {recipe.name for recipe in RECIPES} == set(NAMES)


def test_compressed_size_stays_within_its_budget():
    assert sum(f["bytes"] for e in read_manifest(ROOT).values() for f in e["files"].values()) <= 28e6


def test_a_changed_file_is_named(tmp_path):
    shutil.copytree(ROOT / "udhr", tmp_path / "udhr")
    manifest = {"udhr": read_manifest(ROOT)["udhr"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert verify(tmp_path)
    (tmp_path / "udhr" / "sw.txt.xz").write_bytes((ROOT / "udhr" / "so.txt.xz").read_bytes())
    with pytest.raises(CorpusError, match=r"sw\.txt\.xz does not match its manifest"):
        verify(tmp_path)
    with pytest.raises(CorpusError, match="no corpus file at"):
        check_file(tmp_path / "udhr" / "xx.txt.xz", "0")


@pytest.mark.parametrize("name", NAMES)
def test_texts_are_nfc_and_splits_keep_groups_whole(name):
    corpus = committed(name)
    for column in corpus.columns.values():
        assert all(unicodedata.is_normalized("NFC", text) for text in column[::7])
    split_of_group: dict[str, str] = {}
    for row in corpus.rows:
        assert split_of_group.setdefault(row.group, row.split) == row.split


@pytest.mark.parametrize("name", DOMAINS)
def test_english_domains_have_two_to_four_million_characters(name):
    assert 2e6 <= sum(map(len, committed(name).columns["en"])) <= 4e6


def test_languages_of_the_corpora():
    assert set(committed("religion").languages) == set(RELIGION_EDITIONS)
    assert len(committed("tech").languages) == 16
    assert len(committed("udhr").languages) == 22
    assert not committed("udhr").split("train")
    for code in UNKNOWN:
        assert code in ("sw", "yo", "ha", "so")
        assert all(code not in committed(name).columns for name in NAMES if name != "udhr")


def test_training_text_spans_three_orders_of_magnitude():
    sizes = {}
    for code in TRAINED:
        for name, budget in training_budgets(code).items():
            corpus = committed(name)
            texts = corpus.texts(code, training_rows(corpus, code, budget))
            sizes[code] = sizes.get(code, 0) + sum(len(text.encode()) for text in texts)
    assert max(sizes, key=sizes.__getitem__) == "en"
    assert 2.5 <= np.log10(max(sizes.values()) / min(sizes.values())) <= 3.5
    assert sum(size < 100_000 for size in sizes.values()) >= 3


def test_budgets_are_kept_and_nested():
    corpus = committed("tech")
    small, large = (training_rows(corpus, code, training_budgets(code)["tech"]) for code in ("km", "tr"))
    assert sum(len(corpus.columns["km"][i]) for i in small) <= (LANGUAGES["km"].train_chars or 0)
    translated = {i for i in small if corpus.columns["tr"][i]}
    assert len(translated & set(large)) >= 0.9 * len(translated) > 0


def test_load_by_name_folder_and_nothing(tmp_path):
    assert load("udhr") is committed("udhr")
    (tmp_path / "en.txt").write_text("a\n")
    assert load(str(tmp_path)).languages == ("en",)
    with pytest.raises(CorpusError, match="no data 'flores'"):
        load("flores")
    with pytest.raises(KeyError, match="unknown language 'xx'"):
        language("xx")
    with pytest.raises(CorpusError, match="no corpus 'nothing'"):
        library.committed("nothing")
