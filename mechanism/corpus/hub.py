"""Parallel sets of a model hub as corpora (extra `hub`; needs a network): FLORES-200, Belebele, MGSM, Global-MMLU."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import langcodes

from .languages import LANGUAGES, language
from .store import Corpus, CorpusError, Segment
from .text import nfc

# FLORES names the individual language where BCP 47 has the macro-language, and its own script codes.
_FLORES = {
    "ar": "arb_Arab", "fa": "pes_Arab", "ko": "kor_Hang", "om": "gaz_Latn", "sw": "swh_Latn", "tl": "tgl_Latn",
    "zh": "zho_Hans",
}  # fmt: skip


def flores_code(code: str) -> str:
    """FLORES-200 code of a language: `en` -> `eng_Latn`."""
    return _FLORES.get(code) or f"{langcodes.get(code).to_alpha3()}_{language(code).script}"


@dataclass(frozen=True)
class HubSet:
    """A parallel set on a hub.

    Attributes:
        path: id of the data set; split: its split.
        config: language code -> name of the configuration.
        row: record -> (id, group, text).
    """

    path: str
    split: str
    config: Callable[[str], str]
    row: Callable[[dict[str, Any]], tuple[str, str, str]]


SETS = {
    "flores": HubSet(
        "facebook/flores", "devtest", flores_code, lambda r: (str(r["id"]), str(r.get("URL", r["id"])), r["sentence"])
    ),
    "belebele": HubSet("facebook/belebele", "test", flores_code, lambda r: (r["link"], r["link"], r["flores_passage"])),
    "mgsm": HubSet("juletxu/mgsm", "test", str, lambda r: ("", "", r["question"])),
    "global_mmlu": HubSet(
        "CohereForAI/Global-MMLU", "test", str, lambda r: (r["sample_id"], r["subject"], r["question"])
    ),
}


def load_hub(name: str, languages: tuple[str, ...] = ()) -> Corpus:
    """A hub set as a corpus, rows aligned by the set's own ids (by position where it has none) in the order of the
    English, all in `test`; a text that a language lacks is empty.

    Args:
        name: `flores`, `belebele`, `mgsm` or `global_mmlu`.
        languages: codes to fetch; English is always among them. All of the report's languages by default; those that
            the set lacks are left out unless they were named.

    Raises:
        CorpusError: unknown set, the extra is not installed, no network, or a named language that the set lacks.
    """
    if name not in SETS:
        raise CorpusError(f"no hub set {name!r}; there are {' '.join(SETS)}")
    columns: dict[str, dict[str, tuple[str, str]]] = {}
    for code in dict.fromkeys(("en", *(languages or LANGUAGES))):
        try:
            columns[code] = dict(_rows(SETS[name], code))
        except ValueError as error:  # datasets' answer to a configuration that is not there
            if code in languages or code == "en":
                raise CorpusError(f"hub set {name!r} has no {code!r}: {error}") from error
    ids = list(columns["en"])
    rows = [Segment(id_, columns["en"][id_][0], "test") for id_ in ids]
    return Corpus(
        name, name, rows, {code: [column.get(id_, ("", ""))[1] for id_ in ids] for code, column in columns.items()}
    )


def _rows(source: HubSet, code: str) -> Iterator[tuple[str, tuple[str, str]]]:
    for position, record in enumerate(_fetch(source, source.config(code))):
        id_, group, text = source.row(record)
        yield id_ or str(position), (group or str(position), nfc(text))


def _fetch(source: HubSet, config: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise CorpusError("hub sets need the package datasets: pip install 'mechanism[hub]'") from None
    try:
        return load_dataset(source.path, config, split=source.split)
    except (ConnectionError, OSError) as error:
        raise CorpusError(f"cannot fetch {source.path} ({config}) from the hub: {error}; check the network") from error
