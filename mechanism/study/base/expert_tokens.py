"""Which tokens are typical of which expert, by domain or language: what a map of experts shows when pointed at."""

import html
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Int
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.passes import encode, padding_token, room, routed_tokens
from ...trace import find_sites

COUNT = 4
"""Tokens named of an expert, at most."""


def expert_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, Sequence[str]],
    dim: str = "domain",
    least: int = 3,
) -> xr.Dataset:
    """Selections of each group of texts, and the tokens that each expert receives beyond its share.

    A token's excess is `(n - e) / sqrt(e)` with `n` its selections of the expert and `e` the number it would have at
    the expert's rate in that group. The token that opens a text is not counted.

    Args:
        texts: by group; dim: name of the groups' axis.
        least: selections that a token needs to be named.

    Returns a dataset over `(layer, expert, dim)`: `rate`, the share of tokens whose top-k contains the expert, and
    `tokens`, text escaped for HTML, empty where none stands out.

    Raises:
        ValueError: no texts; DenseModelError: a dense model.
    """
    if not texts or not any(texts.values()):
        raise ValueError("no text to pass through the model")
    found = [_group(model, tokenizer, own, least) for own in texts.values()]
    layers = [site.layer for site in find_sites(model)]
    rate, named = (np.stack(part, -1) for part in zip(*found, strict=True))
    coords = {"layer": layers, "expert": range(rate.shape[1]), dim: list(texts)}
    dims = ("layer", "expert", dim)
    return xr.Dataset({"rate": (dims, rate), "tokens": (dims, named)}, coords)


def _group(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], least: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rates and typical tokens of one group, both `(layer, expert)`."""
    found = routed_tokens(model, encode(tokenizer, texts, room(model)), padding_token(tokenizer))
    kinds, token = np.unique(found.token, return_inverse=True)
    words = [shown(tokenizer, int(kind)) for kind in kinds]
    shape = (len(found.sites), found.experts)
    rate, named = np.full(shape, np.nan), np.full(shape, "", dtype=object)
    for at, site in enumerate(found.sites):
        table = selections(token, found.index[:, at], len(kinds), site.num_experts)
        rate[at, : site.num_experts] = table.sum(0) / max(len(token), 1)
        expected = np.outer(table.sum(1), table.sum(0)) / max(table.sum(), 1)
        excess = np.where((table >= least) & (table > expected), (table - expected) / np.sqrt(expected + 1e-9), 0.0)
        for expert in range(site.num_experts):
            best = np.argsort(-excess[:, expert], kind="stable")[:COUNT]
            named[at, expert] = " ".join(words[i] for i in best if excess[i, expert] > 0)
    return rate, named


def selections(
    token: Int[np.ndarray, "token"], index: Int[np.ndarray, "token slot"], kinds: int, experts: int
) -> Int[np.ndarray, "kind expert"]:
    """How often each kind of token selected each expert; indices out of range are slots that hold no routed expert."""
    table = np.zeros((kinds, experts), dtype=np.int64)
    kept = (index >= 0) & (index < experts)
    np.add.at(table, (np.broadcast_to(token[:, None], index.shape)[kept], index[kept]), 1)
    return table


def shown(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token as readers see it: spaces as a mark, line breaks as an arrow, bytes of a part of a character as such."""
    text = tokenizer.decode([token]).replace(" ", "·").replace("\n", "↵")
    return html.escape(text) or "∅"
