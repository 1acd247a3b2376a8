"""What pages 20 and 21 pass through a model, counted before they run, and short stretches of it to take the time of."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import PARALLEL
from ...corpus.store import CorpusError
from ...models.passes import batches_by_length, encode, pad, padding_token, room, routed_tokens
from ...models.work import Work, padded
from ...trace import find_sites
from ...trace.proof import proven
from ..base.records import recorded, texts_hash
from .domain_experts import FULL, STUDY, DomainConfig, crossed_pieces, domain_key
from .domain_passes import SUMS, route
from .domain_text import Piece, SweepConfig, common_language, domain_pieces, passages
from .effects import FIRST, BatchSweep, Settings
from .sweep import OPTIONS, record_key, tokens_at_once
from .swept_text import PROBES

SHARE_OF = 16
"""Segments from which it is told how many experts a segment selects."""


def domains(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str,
    config: DomainConfig, crossed: Sequence[str] = PARALLEL,
) -> list[Work]:  # fmt: skip
    """Work of `domain_experts.study`, arguments as there; none where its first part is recorded."""
    full, corpora = profile == "full", config.corpora()
    kept = recorded(domain_key(spec, dtype, replace(config, max_segments=FULL), study=STUDY), texts_hash(corpora))
    if profile != "small" and kept is not None:
        return []
    config, sites = replace(config, max_segments=FULL) if full else config, find_sites(model)
    pieces, _ = domain_pieces(corpora, common_language(corpora), config.split, config.max_segments)
    found = [_routed("contributes", model, tokenizer, pieces)]
    with suppress(CorpusError):
        _, several, _ = crossed_pieces(tokenizer, replace(config, domains=tuple(crossed)), room(model))
        found.append(_routed("routes", model, tokenizer, [piece for own in several for piece in own]))
    cells = 4 * len(SUMS) * len(sites) * max(site.num_experts for site in sites)
    documents = len({(piece.domain, piece.document) for piece in pieces})
    return [own._replace(disk=cells * documents if full and not i else 0) for i, own in enumerate(found)]


def drivers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, spec: str, dtype: str, profile: str,
    config: SweepConfig, sample: int,
) -> list[Work]:  # fmt: skip
    """Work of `sweep.study` and `swept_text.study`, arguments as there; none where the sweep is recorded. Segments are
    taken to select as many different experts as the first ones do, and every way of ablation to restart where zero
    ablation does."""
    if profile != "small" and recorded(*record_key(spec, config, dtype)) is not None:
        return []
    full, sites = profile == "full", find_sites(model)
    config = config if full else replace(config, max_segments=sample)
    ids = encode(tokenizer, [p.text for p in passages(config)], config.max_tokens)
    lengths, layers = list(map(len, ids)), len(sites)
    few, padding, experts = ids[:SHARE_OF], padding_token(tokenizer), max(site.num_experts for site in sites)
    seen = routed_tokens(model, few, padding)
    pairs = float((seen.counts() > 0).sum((1, 2)).mean()) / layers  # experts that a segment selects in a layer
    tokens, mask = (t.to(model.device) for t in pad(few, padding))
    way = proven(model, tokens, mask, ("zero",), first=FIRST)
    batches = batches_by_length(ids, tokens_at_once(model, OPTIONS.memory, config.modes))
    passed = sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
    above = layers * (layers - 1) / 2  # layers above the one that is ablated, over all of them
    if "zero" not in way.via:  # whole passes, of all segments for each expert, and no single tokens
        above, pairs = layers * layers, experts
    probed = ("zero" in way.via) * PROBES * max(site.top_k * site.heads for site in sites)
    clean = passed * (1 + ("mean" in config.modes)) + 4 * padded(lengths)
    cells = len(ids) * layers * experts * (3 * len(config.modes) + 3)
    slots = sum(lengths) * layers * max(site.top_k * site.heads for site in sites)
    return [
        Work("sweeps", passed * above * (pairs * len(config.modes) + probed)),
        Work("routes", clean * layers, 4 * cells + 2 * slots if full else 0),
    ]


def contributing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> Callable[[], object]:
    """Text passed as page 20 does, ready to be timed."""
    return lambda: route(model, tokenizer, [Piece("", "", str(i), text) for i, text in enumerate(texts)])


def sweeping(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Callable[[], object]:
    """A few experts of a middle layer ablated, ready to be timed: as many as fill the passes of a sweep."""
    own = encode(tokenizer, texts[:8], 64)
    ids, mask = (t.to(model.device) for t in pad(own, padding_token(tokenizer)))
    way, sites = proven(model, ids, mask, ("zero",), first=FIRST), find_sites(model)
    middle = sites[len(sites) // 2]
    with torch.no_grad():
        swept = BatchSweep(model, ids, mask, Settings(way=way, layers=(middle.layer,)))
    return lambda: swept.run({middle.layer: range(min(8, middle.num_experts))})


def _routed(kind: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Piece]) -> Work:
    lengths = [len(own) for own in encode(tokenizer, [piece.text for piece in pieces], room(model))]
    return Work(kind, float(padded(lengths) * len(find_sites(model))))
