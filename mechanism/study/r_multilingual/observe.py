"""Routing by language on parallel text: the observations of chapter R."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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

FEWEST_TOKENS = 8


@dataclass
class Reading:
    """A language's texts as a tokenizer reads them.

    Attributes:
        texts, ids: of the rows `present`, those that have text and fit the model's context.
        share: relative frequency of each token, `(vocabulary,)`; problem: why the language cannot be observed, empty if
            it can.
    """

    texts: list[str]
    ids: list[list[int]]
    present: np.ndarray
    share: np.ndarray
    problem: str


def read(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], limit: int) -> Reading:
    """Tokenize a language's segments, an empty text being a missing one.

    Args:
        limit: tokens that a segment may have.
    """
    held = [i for i, text in enumerate(texts) if text]
    sequences = [s[1:] for s in encode(tokenizer, [texts[i] for i in held], limit + 1)]
    kept = [(i, s) for i, s in zip(held, sequences, strict=True) if 0 < len(s) <= limit]
    ids = [s for _, s in kept]
    counts = np.bincount([t for s in ids for t in s], minlength=len(tokenizer)).astype(np.float64)
    unknown = tokenizer.unk_token_id
    problem = ""
    if len(held) < FEWEST:
        problem = f"{len(held)} segments, a profile needs {FEWEST}"
    elif len(kept) < FEWEST:
        problem = f"{len(kept)} segments give between 1 and {limit} tokens, a profile needs {FEWEST}"
    elif unknown is not None and counts[unknown] > counts.sum() / 2:
        problem = "the tokenizer knows less than half of the text"
    present = np.array([i for i, _ in kept], dtype=np.int64)
    return Reading([texts[i] for i in present], ids, present, counts / max(counts.sum(), 1.0), problem)


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
    `entropy` of the importance, `consistency` of top-k sets over all pairs of tokens, `nll`, `bytes`, `tokens`, `hits`
    and `hits_centred` (retrieval of the pivot's translation), `distance` (one minus the cosine of centred mean hidden
    states of a pair), and `overlap` of the language's token frequencies with the pivot's, within [0, 1].

    For `consistency` the sequences of a segment are cut to the length of the shortest of them in any language; below
    eight tokens it is NaN. A segment that a language lacks is NaN. `cluster` numbers the document of a segment.
    Attributes: `corpus`, `pivot`, and `left_out`, a mapping from languages that cannot be observed to the reason.

    Raises:
        CorpusError: a language that the corpus does not hold, fewer than ten segments, or no language left to compare
            with the pivot.
        ModelError: the model routes nowhere.
    """
    first = pivot_of(corpus)
    codes = list(dict.fromkeys([first, *(config.languages or corpus.languages)]))
    rows = config.rows(corpus)
    readings = {code: read(tokenizer, corpus.texts(code, rows), room(model)) for code in codes}
    left_out = {code: own.problem for code, own in readings.items() if own.problem}
    usable = {code: own for code, own in readings.items() if not own.problem}
    if first in left_out or len(usable) < 2:
        told = "; ".join(f"{code}: {reason}" for code, reason in left_out.items()) or "it is the only language"
        raise CorpusError(f"corpus {corpus.name!r} leaves nothing to compare with {first!r} ({told})")
    cut = _common_length(list(usable.values()), len(rows))
    parts = {}
    for code, own in usable.items():
        progress(f"{corpus.name} {code}")
        made = segment_pass(model, tokenizer, own.texts, consistency=True, cut=cut[own.present])
        if not made.layers:
            raise ModelError("the model routes nowhere: it has no routed experts to observe")
        made.consistency[cut[own.present] < FEWEST_TOKENS] = np.nan
        parts[code] = _Spread(made, own.present, len(rows))
    overlaps = {code: float(np.minimum(own.share, usable[first].share).sum()) for code, own in usable.items()}
    found = xr.concat(
        [_language(own, parts[first], code).assign(overlap=("lang", [overlaps[code]])) for code, own in parts.items()],
        "lang",
        join="exact",
    )
    clusters = pd.factorize(np.array([corpus.rows[i].group for i in rows], dtype=object))[0]
    found = found.assign_coords(cluster=("segment", clusters))
    return found.assign_attrs(corpus=corpus.name, pivot=first, left_out=left_out)


def _common_length(readings: Sequence[Reading], rows: int) -> np.ndarray:
    """Tokens of each segment in the language that needs fewest."""
    lengths = np.full((len(readings), rows), np.iinfo(np.int64).max)
    for own, line in zip(readings, lengths, strict=True):
        line[own.present] = [len(s) for s in own.ids]
    return np.asarray(lengths.min(0))


@dataclass
class _Spread:
    """A pass over the present segments, spread over all of them with NaN between."""

    own: SegmentPass
    present: np.ndarray
    size: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        full = np.full((self.size, *values.shape[1:]), np.nan, dtype=np.float32)
        full[self.present] = values
        return full


def _language(own: _Spread, pivot: _Spread, code: str) -> xr.Dataset:
    mine = own.own
    data: dict[str, tuple] = {
        "nll": ("segment", own(mine.nll)),
        "bytes": ("segment", own(mine.bytes)),
        "tokens": ("segment", own(mine.tokens)),
        "importance": (("segment", "layer", "expert"), own(mine.importance)),
        "frequency": (("segment", "layer", "expert"), own(mine.selections / mine.tokens[:, None, None])),
        "entropy": (("segment", "layer"), own(entropy(mine.importance))),
        "consistency": (("segment", "layer"), own(mine.consistency)),
    }
    theirs = pivot(pivot.own.importance)
    data["divergence"] = (("segment", "layer"), own(normalised_js(mine.importance, theirs[own.present])))
    data |= _states(own, pivot)
    experts = mine.importance.shape[2]
    coords = {"segment": np.arange(own.size), "layer": list(mine.layers), "expert": np.arange(experts)}
    return xr.Dataset(data, coords=coords).expand_dims(lang=[code])


def _states(own: _Spread, pivot: _Spread) -> dict[str, tuple]:
    """What mean hidden states say of each pair."""
    shared = np.intersect1d(own.present, pivot.present)
    sides = [s.own.hidden[np.searchsorted(s.present, shared)] for s in (own, pivot)]
    measures: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "hits": retrieval_hits,
        "hits_centred": lambda a, b: retrieval_hits(a, b, centre=True),
        "distance": lambda a, b: 1 - parallel_similarity(a, b, centre=True)[:, 0],
    }
    found = {}
    for name, measure in measures.items():
        full = np.full((own.size, sides[0].shape[1]), np.nan, dtype=np.float32)
        if len(shared) > 1:
            for state in range(full.shape[1]):
                full[shared, state] = measure(sides[0][:, state], sides[1][:, state])
        found[name] = (("segment", "state"), full)
    return found


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
    return joined.assign_attrs(corpus="pooled", pivot=parts[0].attrs["pivot"])


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
