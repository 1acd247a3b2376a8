"""Probes along a training run: quality, routing and retrieval by language, on held-out parallel text."""

from pathlib import Path

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import committed
from ...corpus.store import Corpus
from ...measure.divergence import entropy, normalised_js
from ...measure.retrieval import retrieval_hits
from ...models.segments import SegmentPass, segment_pass
from ..base.probe_log import probe_path, write_stats

PROBE_SEGMENTS = {"religion": 200, "tech": 200, "udhr": 48}


def probe_rows(corpus: Corpus, limit: int) -> list[int]:
    """Rows of the probe: the first dev rows (test rows of an evaluation-only corpus) that most languages share."""
    split = "dev" if corpus.split("dev") else "test"
    rows = corpus.split(split)
    coverage = [sum(bool(column[i]) for column in corpus.columns.values()) for i in rows]
    ranked = sorted(range(len(rows)), key=lambda j: (-coverage[j], j))[:limit]
    return sorted(rows[j] for j in ranked)


def probe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> xr.Dataset:
    """Statistics of a model on the probe segments.

    Returns a dataset over `(corpus, lang, segment, layer, expert)`: `nll` and `bytes` per segment, `divergence` from
    English per parallel pair, `entropy` of the importance distribution, `selections` (top-k counts over the corpus),
    `probability` (mean router probability), `hits` and `hits_centred` (retrieval of the English translation).
    """
    parts = []
    for name, limit in PROBE_SEGMENTS.items():
        corpus = committed(name)
        rows = probe_rows(corpus, limit)
        english = segment_pass(model, tokenizer, corpus.texts("en", rows))
        languages = []
        for code in corpus.languages:
            texts = corpus.texts(code, rows)
            present = np.array([i for i, text in enumerate(texts) if text])
            own = english if code == "en" else segment_pass(model, tokenizer, [texts[i] for i in present])
            languages.append(_language(own, english, present, len(rows)).expand_dims(lang=[code]))
        parts.append(xr.concat(languages, "lang", join="exact").expand_dims(corpus=[name]))
    return xr.concat(parts, "corpus", join="outer", fill_value=np.nan)


def _language(own: SegmentPass, english: SegmentPass, present: np.ndarray, size: int) -> xr.Dataset:
    """Statistics of the segments of a language that are `present`, NaN for the others of `size`."""
    data: dict[str, tuple] = {name: ("segment", getattr(own, name)) for name in ("nll", "bytes", "tokens")}
    states = own.hidden.transpose(1, 0, 2), english.hidden[present].transpose(1, 0, 2)
    for key, centre in (("hits", False), ("hits_centred", True)):
        hits = np.stack([retrieval_hits(q, k, centre) for q, k in zip(*states, strict=True)], 1)
        data[key] = (("segment", "state"), hits)
    if own.importance.size:
        data |= {
            "divergence": (("segment", "layer"), normalised_js(own.importance, english.importance[present])),
            "entropy": (("segment", "layer"), entropy(own.importance)),
            "selections": (("layer", "expert"), own.selections.sum(0)),
            "probability": (("layer", "expert"), own.importance.mean(0)),
        }
    return xr.Dataset(data, {"segment": present}).astype(np.float32).reindex(segment=np.arange(size))


def split_probes(joined: Path, folder: Path, until: int) -> None:
    """Put joined probes up to `until` tokens back into a folder, one file each; what else was there is removed."""
    stats = xr.load_dataset(joined)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.nc"):
        old.unlink()
    for at, tokens in enumerate(stats["tokens_seen"].values):
        if tokens <= until:
            write_stats(stats.isel(tokens_seen=at), probe_path(folder, int(tokens)))
