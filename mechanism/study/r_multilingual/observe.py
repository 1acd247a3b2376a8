"""Routing by language on parallel text: the observations of chapter R."""

from collections.abc import Callable, Sequence

import langcodes
import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.store import Corpus, CorpusError
from ...measure.divergence import entropy, normalised_js
from ...measure.retrieval import parallel_similarity, retrieval_hits
from ...models.load import ModelError
from ...models.passes import encode, room
from ...models.segments import SegmentPass, segment_pass
from ..base.texts import FEWEST, SAMPLE, RoutingConfig, pivot_of

POOLED = "pooled"
FEWEST_TOKENS = 8
STATES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "hits": retrieval_hits,
    "hits_centred": lambda ours, theirs: retrieval_hits(ours, theirs, centre=True),
    "distance": lambda ours, theirs: 1 - parallel_similarity(ours, theirs, centre=True)[:, 0],
}
"""What mean hidden states say of a language's segments and the pivot's."""


def read(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int) -> tuple[pd.Series, str]:
    """Token ids of a language's segments by row, and why the language cannot be observed, empty if it can. A segment
    that has no text, no token or more than `limit` of them is missing."""
    held = [i for i, text in enumerate(texts) if text]
    sequences = [s[1:] for s in encode(tokenizer, [texts[i] for i in held], limit + 1)]
    kept = pd.Series({i: s for i, s in zip(held, sequences, strict=True) if 0 < len(s) <= limit}, dtype=object)
    problem = ""
    if len(held) < FEWEST:
        problem = f"{len(held)} segments, a profile needs {FEWEST}"
    elif len(kept) < FEWEST:
        problem = f"{len(kept)} segments give between 1 and {limit} tokens, a profile needs {FEWEST}"
    elif tokenizer.unk_token_id is not None and _shares(kept, tokenizer)[tokenizer.unk_token_id] > 1 / 2:
        problem = "the tokenizer knows less than half of the text"
    return kept, problem


def read_all(
    tokenizer: PreTrainedTokenizerBase, corpus: Corpus, config: RoutingConfig, limit: int
) -> dict[str, tuple[pd.Series, str]]:
    """What `read` says of every language that is observed, the pivot first."""
    codes = dict.fromkeys([pivot_of(corpus), *(config.languages or corpus.languages)])
    rows = config.rows(corpus)
    return {code: read(tokenizer, corpus.texts(code, rows), limit) for code in codes}


def _shares(ids: pd.Series, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Relative frequency of each token of the vocabulary."""
    counts = np.bincount(np.concatenate(ids.to_list()), minlength=len(tokenizer))
    return np.asarray(counts / counts.sum())


def observe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: Corpus,
    config: RoutingConfig = SAMPLE,
    progress: Callable[[str], None] = lambda line: None,
) -> xr.Dataset:
    """Routing of every language on the same segments.

    Returns a dataset over `(lang, segment, layer, expert, state)`: `importance` (arXiv 2510.04694, eq. 1), `frequency`
    (share of a segment's tokens that select the expert), `divergence` from the pivot per parallel pair (eq. 2),
    `shuffled`, the same from the pivot's segment half the corpus away, `entropy` of the importance, `consistency` of
    top-k sets over all pairs of tokens, `nll`, `bytes`, `tokens`, `hits` and `hits_centred` (retrieval of the pivot's
    translation), `distance` (one minus the cosine of centred mean hidden states of a pair), and `overlap` of the
    language's token frequencies with the pivot's, within [0, 1].

    For `consistency` the sequences of a segment are cut to the length of the shortest of them in any language; below
    eight tokens it is NaN. A segment that a language lacks is NaN. `cluster` numbers the document of a segment.
    Attributes: `corpus`, `pivot`, and `left_out`, a mapping from languages that cannot be observed to the reason.

    Raises:
        CorpusError: a language that the corpus does not hold, fewer than ten segments, or no language left to compare
            with the pivot.
        ModelError: the model routes nowhere.
    """
    first, rows, readings = pivot_of(corpus), config.rows(corpus), read_all(tokenizer, corpus, config, room(model))
    left_out = {code: problem for code, (_, problem) in readings.items() if problem}
    usable = {code: ids for code, (ids, problem) in readings.items() if not problem}
    if first in left_out or len(usable) < 2:
        told = "; ".join(f"{code}: {reason}" for code, reason in left_out.items()) or "it is the only language"
        raise CorpusError(f"corpus {corpus.name!r} leaves nothing to compare with {first!r} ({told})")
    shortest = pd.DataFrame({code: ids.map(len) for code, ids in usable.items()}).min(axis=1)
    pivot: xr.Dataset | None = None
    parts = []
    for code, ids in usable.items():
        progress(f"{corpus.name} {code}")
        cut = shortest[ids.index].to_numpy(np.int64)
        texts = corpus.texts(code, [rows[i] for i in ids.index])
        made = segment_pass(model, tokenizer, texts, consistency=True, cut=cut)
        if not made.layers:
            raise ModelError("the model routes nowhere: it has no routed experts to observe")
        routed = _routing(made, ids.index.to_numpy(), cut)
        pivot = routed if pivot is None else pivot
        overlap = float(np.minimum(_shares(ids, tokenizer), _shares(usable[first], tokenizer)).sum())
        parts.append(_compared(routed, pivot).assign(overlap=overlap).expand_dims(lang=[code]))
    found = xr.concat(parts, "lang", data_vars="all", join="outer").reindex(segment=np.arange(len(rows)))
    clusters = pd.factorize(np.array([corpus.rows[i].group for i in rows], dtype=object))[0]
    found = found.assign_coords(cluster=("segment", clusters))
    return found.assign_attrs(corpus=corpus.name, pivot=first, left_out=left_out)


def frequency(made: SegmentPass) -> np.ndarray:
    """Share of each segment's tokens that select each expert, `(segment, layer, expert)`."""
    return np.asarray(made.selections / made.tokens[:, None, None])


def _routing(made: SegmentPass, present: np.ndarray, cut: np.ndarray) -> xr.Dataset:
    """What one pass says of the segments of a language that are `present`."""
    layers = ("segment", "layer")
    data = {
        "nll": ("segment", made.nll),
        "bytes": ("segment", made.bytes),
        "tokens": ("segment", made.tokens),
        "importance": ((*layers, "expert"), made.importance),
        "frequency": ((*layers, "expert"), frequency(made)),
        "entropy": (layers, entropy(made.importance)),
        "consistency": (layers, np.where(cut[:, None] < FEWEST_TOKENS, np.nan, made.consistency)),
        "hidden": (("segment", "state", "d"), made.hidden),
    }
    coords = {"segment": present, "layer": list(made.layers), "expert": np.arange(made.importance.shape[2])}
    return xr.Dataset(data, coords).astype(np.float32)


def _compared(own: xr.Dataset, pivot: xr.Dataset) -> xr.Dataset:
    """The same beside what routing and mean hidden states say of the segments that the pivot has as well."""
    pair = xr.align(own, pivot, join="inner")
    states = [side["hidden"].transpose("state", "segment", "d").values for side in pair]
    ours, theirs = (side["importance"].values for side in pair)
    found = {
        name: (("segment", "layer"), normalised_js(ours, np.roll(theirs, by, axis=0)))
        for name, by in (("divergence", 0), ("shuffled", len(theirs) // 2))
    }
    for name, measure in STATES.items() if pair[0].sizes["segment"] > 1 else ():
        values = [measure(ours, theirs) for ours, theirs in zip(*states, strict=True)]
        found[name] = ("segment", "state"), np.stack(values, 1)
    compared = xr.Dataset(found, {"segment": pair[0]["segment"]}).astype(np.float32)
    return xr.merge([own.drop_vars("hidden"), compared], join="outer")


def pool(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Observations of several corpora as one over all of their segments; a language that a corpus lacks is NaN there.
    Experts are left out.

    Raises:
        CorpusError: the corpora are compared with different pivots.
    """
    if len({part.attrs["pivot"] for part in parts}) > 1:
        told = ", ".join(f"{part.attrs['corpus']}: {part.attrs['pivot']}" for part in parts)
        raise CorpusError(f"corpora with different pivots cannot be pooled ({told}); observe them one by one")
    slim, documents = [], 0
    for part in parts:
        own = part.drop_vars(["importance", "frequency", "overlap", "expert"], errors="ignore")
        slim.append(own.assign_coords(cluster=own["cluster"] + documents).drop_vars("segment", errors="ignore"))
        documents += int(own["cluster"].max()) + 1
    joined = xr.concat(slim, "segment", join="outer", fill_value=np.nan, combine_attrs="drop")
    return joined.assign_attrs(corpus=POOLED, pivot=parts[0].attrs["pivot"])


def pick_layers(found: xr.DataArray | xr.Dataset, layers: Sequence[int] | None) -> list[int]:
    """Layers to look at closely: those named, or the first, the middle and the last that route.

    Raises:
        ValueError: a named layer has no router.
    """
    known = [int(layer) for layer in found["layer"].values]
    if not layers:
        return list(dict.fromkeys([known[0], known[len(known) // 2], known[-1]]))
    for layer in layers:
        if layer not in known:
            raise ValueError(f"layer {layer} has no router; routers are in layers {' '.join(map(str, known))}")
    return list(layers)


def script_of(code: str) -> str | None:
    """ISO 15924 script that a language is written in, stated by its code or the usual one; None for a code that is no
    language tag."""
    try:
        tag = langcodes.get(code)
    except langcodes.LanguageTagError:
        return None
    return tag.maximize().script if tag.is_valid() else None
