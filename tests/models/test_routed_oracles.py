"""The hand-made loops that the routed pass replaces, as oracles for one commit."""

import numpy as np
import pytest
import torch

from mechanism.corpus.library import committed
from mechanism.measure.importance import slot_sums
from mechanism.models.load import load_model
from mechanism.models.passes import encode, padding_token, room, routed_passes, routed_tokens
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.variants import VariantConfig
from mechanism.study.base.texts import RoutingConfig
from mechanism.study.d_domains.domain_passes import route
from mechanism.study.d_domains.domain_text import Piece
from mechanism.study.d_domains.driver_tokens import route_tokens
from mechanism.study.p_cross_lingual import communication
from mechanism.study.r_multilingual.expert_sets import activation_rates
from mechanism.study.r_multilingual.language_experts import task_frequencies
from mechanism.trace import slot_outputs
from mechanism.trace.contributions import ExpertsInput

TEXTS = ["In the beginning God created the heavens and the earth.", "Click OK.", "Öffnet das Fenster Ausrichtung."] * 2
BITS = ["one " * 70, "A", "of the", *TEXTS]


@pytest.fixture(scope="module", params=["tiny", "multi-head"])
def loaded(request):
    model, tokenizer = load_model("tiny", "cpu")
    if request.param == "multi-head":
        torch.manual_seed(0)
        layer = MultiHeadMoEConfig(16, experts=8, top_k=2, width=12, heads=4)
        model = VariantConfig(layer, vocab=len(tokenizer), layers=2, heads=2, head_dim=8, context=300).build().eval()
    ids = encode(tokenizer, BITS, room(model))
    return model, tokenizer, ids, padding_token(tokenizer)


def test_rates(loaded):
    model, tokenizer, ids, padding = loaded
    found = routed_tokens(model, ids, padding, 8192)
    np.testing.assert_array_equal(found.rates(), activation_rates(model, tokenizer, BITS))
    if found.sites[0].heads == 1:
        found = routed_tokens(model, ids, padding)
        np.testing.assert_array_equal(found.rates(), task_frequencies(model, tokenizer, {"a": BITS})["a"])


def test_driver_tokens(loaded):
    model, _, ids, padding = loaded
    found, old = routed_tokens(model, ids, padding), route_tokens(model, ids, padding)
    order = np.argsort(old.sequence, kind="stable")
    for name in ("sequence", "place", "length", "token", "selected"):
        np.testing.assert_array_equal(getattr(found, name), getattr(old, name)[order])


def test_communication():
    model, tokenizer = load_model("tiny", "cpu")
    corpus, config = committed("religion"), RoutingConfig(max_segments=10)
    old = communication.routed_tokens(model, tokenizer, corpus, ["en", "de"], config)
    texts = [corpus.columns[c][i] for c in ("en", "de") for i in config.rows(corpus) if corpus.columns[c][i]]
    found = routed_tokens(model, encode(tokenizer, texts), padding_token(tokenizer))
    np.testing.assert_array_equal(found.index, old.index)
    np.testing.assert_array_equal(found.sequence, old.sequence)
    assert found.experts == old.experts


@torch.no_grad()
def test_documents(loaded):
    model, tokenizer, ids, padding = loaded
    pieces = [Piece(text=t, domain="d", lang="en", document=str(i % 3)) for i, t in enumerate(BITS)]
    old = route(model, tokenizer, pieces)
    owner = np.arange(len(BITS)) % 3
    sums = {name: np.zeros_like(values) for name, values in old.sums.items()}
    tokens = np.zeros(3)
    from mechanism.trace import find_sites

    hooks = {site.layer: ExpertsInput(site) for site in find_sites(model)}
    for one in routed_passes(model, ids, padding, logits=False):
        own = owner[one.sequence]
        tokens += np.bincount(own, minlength=3) * one.sites[0].heads
        for at, site in enumerate(one.sites):
            index, seen = one.experts(site), hooks[site.layer]
            outputs = slot_outputs(site, seen.hidden, seen.index).float()
            size = one.of_text(outputs.norm(dim=-1) * seen.weight.float().abs())
            sums["selections"][:, at] += slot_sums(index, own, 3, sums["weight"].shape[2])
            sums["weight"][:, at] += slot_sums(index, own, 3, sums["weight"].shape[2], one.weights(site))
            sums["activity"][:, at] += slot_sums(index, own, 3, sums["weight"].shape[2], size)
            peak = one.of_text(outputs.abs().amax(-1))
            np.maximum.at(sums["peak"][:, at], (np.broadcast_to(own[:, None], index.shape), index), peak)
    np.testing.assert_array_equal(tokens, old.tokens)
    for name, values in old.sums.items():
        np.testing.assert_array_equal(sums[name], values, err_msg=name)
    for hook in hooks.values():
        hook.remove()
