"""Loss and routing by language on held-out text, with the language told, told wrong, or withheld."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import committed
from ...corpus.store import Corpus
from ...models.scoring import score_text
from ...models.segments import segment_pass
from ...nn.language import listeners, tell
from ..embedded.evaluate import running_text

CORPORA = ("religion", "tech")


@dataclass(frozen=True)
class HeldOut:
    """Which text is scored: at most `segments` of a language and corpus for losses, `routed` for routing."""

    segments: int = 60
    routed: int = 12


def speaking(model: nn.Module, lang: int) -> AbstractContextManager[None]:
    """Tell a model that listens; any other is left alone."""
    return tell(model, lang) if listeners(model) else nullcontext()


def corpora(code: str) -> list[Corpus]:
    """Those that have a language."""
    return [corpus for corpus in map(committed, CORPORA) if code in corpus.columns]


def bits_table(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, codes: Sequence[str], told: Sequence[int], split: str,
    segments: int,
) -> pd.DataFrame:  # fmt: skip
    """Bits of each document: columns `lang`, `corpus`, `document`, `bits`, `bytes`.

    Args:
        told: language id of each code; the model is told nothing where it does not listen.
    """
    parts = []
    for code, lang in zip(codes, told, strict=True):
        texts = {
            (code, corpus.name, number): text
            for corpus in corpora(code)
            for number, text in enumerate(running_text(corpus, code, split, segments))
        }
        with speaking(model, lang):
            found = score_text(model, tokenizer, list(texts.values()))
        table = pd.DataFrame(list(texts), columns=["lang", "corpus", "document"])
        parts.append(table.assign(bits=(found.nll / np.log(2)).round(2), bytes=found.bytes.astype(int)))
    return pd.concat(parts, ignore_index=True)


def use_of_experts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, codes: Sequence[str], told: Sequence[int], split: str,
    segments: int,
) -> xr.DataArray:  # fmt: skip
    """Selections `(lang, layer, expert)` on segments of each language, with its `tokens` as a coordinate; empty for a
    dense model."""
    counts, sizes = [], []
    for code, lang in zip(codes, told, strict=True):
        texts = [
            text
            for corpus in corpora(code)
            for text in corpus.texts(code, [i for i in corpus.split(split) if corpus.columns[code][i]][:segments])
        ]
        with speaking(model, lang):
            found = segment_pass(model, tokenizer, texts, hidden=False)
        counts.append(found.selections.sum(0))
        sizes.append(int(found.tokens.sum()))
    coords = {"lang": list(codes), "tokens": ("lang", sizes)}
    return xr.DataArray(np.stack(counts), dims=("lang", "layer", "expert"), coords=coords)


def macro_loss(table: pd.DataFrame) -> float:
    """Bits per byte, mean over languages."""
    sums = table.groupby("lang")[["bits", "bytes"]].sum()
    return float((sums["bits"] / sums["bytes"]).mean())
