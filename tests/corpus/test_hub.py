"""Hub sets without a network: a stand-in for `datasets` that answers like it."""

import sys
import types

import pytest

from mechanism.corpus import library
from mechanism.corpus.hub import SETS, flores_code, load_hub
from mechanism.corpus.store import CorpusError

RECORDS = {
    "eng_Latn": [{"id": 1, "URL": "u", "sentence": "one"}, {"id": 2, "URL": "v", "sentence": "two"}],
    "swh_Latn": [{"id": 2, "URL": "v", "sentence": "mbili"}, {"id": 3, "URL": "v", "sentence": "tatu"}],
}


@pytest.fixture
def hub(monkeypatch):
    asked = []

    def load_dataset(path, config, split):
        asked.append((path, config, split))
        if config == "offline_Latn":
            raise ConnectionError("no route")
        if config not in RECORDS:
            raise ValueError(f"BuilderConfig {config!r} not found")
        return RECORDS[config]

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_rows_are_aligned_by_id(hub):
    corpus = load_hub("flores", ("sw",))
    assert corpus.languages == ("en", "sw")
    assert corpus.columns["sw"] == ["", "mbili"]
    assert [row.group for row in corpus.rows] == ["u", "v"]
    assert hub[0] == ("facebook/flores", "eng_Latn", "devtest")
    assert library.load("hub:flores", ("sw",)).columns == corpus.columns


def test_missing_languages_are_left_out_unless_named(hub):
    assert load_hub("flores").languages == ("en", "sw")
    with pytest.raises(CorpusError, match="hub set 'flores' has no 'de'"):
        load_hub("flores", ("de",))


def test_unknown_set_missing_package_and_no_network(hub, monkeypatch):
    with pytest.raises(CorpusError, match="no hub set 'x'; there are flores belebele mgsm global_mmlu"):
        load_hub("x")
    monkeypatch.setattr("mechanism.corpus.hub.flores_code", lambda code: "offline_Latn")
    source = SETS["flores"]
    monkeypatch.setitem(SETS, "flores", type(source)(source.path, source.split, lambda c: "offline_Latn", source.row))
    with pytest.raises(CorpusError, match="check the network"):
        load_hub("flores")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="need the package datasets"):
        load_hub("flores")


def test_flores_codes():
    found = {code: flores_code(code) for code in ("en", "ar", "zh", "sw", "ja", "hi", "tl", "ko", "yo", "om")}
    expected = "eng_Latn arb_Arab zho_Hans swh_Latn jpn_Jpan hin_Deva tgl_Latn kor_Hang yor_Latn gaz_Latn"
    assert list(found.values()) == expected.split()
