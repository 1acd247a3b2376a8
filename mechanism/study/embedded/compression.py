"""Compression baselines: what xz and an order-5 PPM reach with the training text that the embedded model had."""

import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from ...corpus.languages import LANGUAGES
from ...corpus.library import DATA, DOMAINS, PARALLEL, committed, training_budgets, training_rows
from ..base.runs import data_hash
from .evaluate import RECORD_SEGMENTS, running_text

ORDER, MEMORY = 5, 512 << 20
FOLDER = DATA / "baselines"


def ppm_size(payload: bytes) -> int:
    """Bytes that PPMd (variant H, order 5) needs.

    Raises:
        ValueError: pyppmd is not installed.
    """
    try:
        import pyppmd
    except ImportError:
        raise ValueError("PPM comes with pyppmd, which is not installed: pip install pyppmd") from None
    encoder = pyppmd.Ppmd7Encoder(ORDER, MEMORY)
    return len(encoder.encode(payload)) + len(encoder.flush())


def xz_size(payload: bytes) -> int:
    """Bytes that `xz -9e` needs, its dictionary large enough for all of a language's text."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    return len(lzma.compress(payload, lzma.FORMAT_XZ, filters=filters))


SIZES: dict[str, Callable[[bytes], int]] = {"ppm": ppm_size, "xz": xz_size}


def conditional_bits(size: Callable[[bytes], int], train: bytes, alone: int, test: bytes) -> int:
    """Bits for `test` after `train` has been read: the size of both less that of `train` `alone`."""
    return 8 * (size(train + test) - alone)


def training_text(code: str) -> bytes:
    """All training text of a language within its budget, corpus after corpus."""
    parts = []
    for name, budget in training_budgets(code).items():
        corpus = committed(name)
        parts.append(corpus.joiner.join(corpus.texts(code, training_rows(corpus, code, budget))))
    return "\n".join(parts).encode()


def compute(report: Callable[[str], None]) -> pd.DataFrame:
    """Bits per byte on the test text that the records of runs are evaluated on, of every language and corpus: columns
    `corpus, lang, bytes, ppm, xz`. Languages without training text start from nothing."""
    rows = []
    for code in LANGUAGES:
        train = training_text(code) if LANGUAGES[code].train_chars != 0 else b""
        alone = {name: size(train) for name, size in SIZES.items()}
        for corpus, test in _tests(code):
            bits = {name: conditional_bits(size, train, alone[name], test) for name, size in SIZES.items()}
            rows.append({"corpus": corpus, "lang": code, "bytes": len(test)})
            rows[-1] |= {name: round(value / len(test), 4) for name, value in bits.items()}
        report(f"{code}: {len(train) / 1e6:.2f} MB of training text")
    return pd.DataFrame(rows)


def _tests(code: str) -> Iterator[tuple[str, bytes]]:
    for name in (*PARALLEL, *DOMAINS):
        corpus = committed(name)
        documents = running_text(corpus, code, "test", RECORD_SEGMENTS) if code in corpus.columns else []
        if documents:
            yield name, corpus.joiner.join(documents).encode()


def record() -> Path:
    """Where the committed baselines of these data stand."""
    return FOLDER / f"{data_hash()}.csv"


def recorded() -> pd.DataFrame | None:
    """The committed baselines of these data, None where there are none."""
    return pd.read_csv(record()) if record().exists() else None


def made(report: Callable[[str], None]) -> pd.DataFrame:
    """The baselines of these data, computed (some ten minutes) and written where they are not there."""
    if not record().exists():
        table = compute(report)
        record().parent.mkdir(exist_ok=True)
        table.to_csv(record(), index=False)
    return pd.read_csv(record())
