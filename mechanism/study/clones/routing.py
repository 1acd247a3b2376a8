"""What models of clone languages do with one text in every language: loss, routing beside English's, and states."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus.clones import KEY, CloneStream
from ...corpus.library import committed
from ...measure.divergence import entropy, normalised_js
from ...measure.retrieval import retrieval_hits, unit
from ...models.segments import SegmentPass, segment_pass

CORPORA = ("religion", "tech", "maths", "fiction", "dictionary")
"""Those with enough segments of the wanted length; rows of the others are whole pages."""
PACKED = ("divergence", "shuffled", "entropy", "consistency")
OF_MEANS = ("nll", "divergence", "shuffled", "hits", "within", "distance")


@dataclass(frozen=True)
class HeldOut:
    """Held-out text: at most `segments` of each corpus and split, from `shortest` to `longest` tokens long."""

    segments: int
    shortest: int
    longest: int


@dataclass(frozen=True)
class Segments:
    """Segments of English.

    Attributes:
        texts: what they are; document: number of each one's; other: for each one, the number of a segment of another
            document of the same corpus, no two alike.
    """

    texts: Sequence[str]
    document: np.ndarray
    other: np.ndarray


def held_segments(config: HeldOut, tokenizer: PreTrainedTokenizerFast, split: str) -> Segments:
    """Segments of a split, from as many documents as possible."""
    kept = []
    for name in CORPORA:
        corpus = committed(name)
        rows = [(group, i) for group, own in corpus.groups(split).items() for i in own if corpus.columns[KEY][i]]
        table = pd.DataFrame(rows, columns=["document", "row"]).assign(corpus=name)
        table["text"] = [corpus.columns[KEY][i] for i in table["row"]]
        sizes = np.array([len(ids) for ids in tokenizer(table["text"].tolist())["input_ids"]])
        table = table[(sizes >= config.shortest) & (sizes <= config.longest)]
        table["turn"] = table.groupby("document").cumcount()
        kept.append(table.sort_values(["turn", "document"]).head(config.segments))
    found = pd.concat(kept, ignore_index=True)
    document = found.groupby(["corpus", "document"], sort=False).ngroup().to_numpy()
    places = found.groupby("corpus", sort=False).indices.values()
    other = np.concatenate([_others(own, document) for own in places])
    return Segments(found["text"].tolist(), document, other)


def _others(places: np.ndarray, document: np.ndarray) -> np.ndarray:
    """The places turned by so many that most meet another document."""
    turned = [np.roll(places, -by) for by in range(1, len(places))]
    return max(turned, key=lambda own: int((document[own] != document[places]).sum()))


def observe_clones(
    model: PreTrainedModel, stream: CloneStream, segments: Segments, consistency: bool = False
) -> xr.Dataset:
    """Every segment in every language.

    Returns:
        Over `lang`, `segment`, `layer`, `state` and `expert`: `nll` per token; `divergence` (entropy-normalised
        Jensen-Shannon divergence of mean router probabilities) from the same segment in English, `shuffled` from
        another segment in English; `within` (mean over segments), from another segment in the same language; `hits`
        (centred retrieval of the segment in English) and `distance` (mean of one minus the cosine of states with it);
        `entropy` and `consistency`; `selections` and `probability` of experts. A dense model has states alone. The
        coordinate `document` groups segments.
    """
    english: SegmentPass | None = None
    parts = []
    for language in range(len(stream.ids)):
        tokenizer = stream.tokenizer_of(language)
        own = segment_pass(model, tokenizer, segments.texts, consistency=consistency)
        english = english or own
        parts.append(_language(own, english, segments.other))
    found = xr.concat(parts, "lang", coords="minimal", compat="override")
    return found.assign_coords(lang=list(stream.clones.names), document=("segment", segments.document))


def _language(own: SegmentPass, english: SegmentPass, other: np.ndarray) -> xr.Dataset:
    states = own.hidden.transpose(1, 0, 2), english.hidden.transpose(1, 0, 2)
    hits = np.stack([retrieval_hits(q, k, centre=True) for q, k in zip(*states, strict=True)], 1)
    cosine = (unit(own.hidden) * unit(english.hidden)).sum(-1)
    data: dict[str, tuple] = {
        "nll": ("segment", own.nll / own.tokens),
        "hits": (("segment", "state"), hits.astype(np.float32)),
        "distance": ("state", 1 - cosine.mean(0)),
    }
    if own.importance.size:
        each = ("segment", "layer")
        data |= {
            "divergence": (each, normalised_js(own.importance, english.importance)),
            "shuffled": (each, normalised_js(own.importance, english.importance[other])),
            "within": ("layer", normalised_js(own.importance, own.importance[other]).mean(0)),
            "entropy": (each, entropy(own.importance)),
            "selections": (("layer", "expert"), own.selections.sum(0)),
            "probability": (("layer", "expert"), own.importance.mean(0)),
        }
        if own.consistency.size:
            data["consistency"] = (each, own.consistency)
    return xr.Dataset(data)


def summed_up(found: xr.Dataset) -> xr.Dataset:
    """Means over segments."""
    kept = found[[name for name in OF_MEANS if name in found]].drop_vars("document")
    return kept.mean([d for d in kept.dims if d == "segment"]).astype(np.float32)
