"""Layers that know the language: oracles, counts, gradients, the path of the language id, and bad input."""

import json
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from mechanism.nn.allocation import AllocatedRouter, expert_groups, groups_of
from mechanism.nn.auto import layer_config
from mechanism.nn.errors import LayerError
from mechanism.nn.language import UNKNOWN, LanguageRouter, listeners, tell
from mechanism.nn.language_moe import LanguageMoEConfig, OffsetExperts
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.train_config import TrainConfig
from mechanism.nn.training import Trainer
from mechanism.nn.variants import VariantConfig

from .oracles import drawn, mixture

BASE: dict[str, Any] = {"hidden": 6, "experts": 8, "top_k": 2, "width": 4, "languages": 3}
CONFIGS = {
    "added": LanguageMoEConfig(**BASE, signal="added"),
    "concatenated": LanguageMoEConfig(**BASE, signal="concatenated", lang_width=3, shared_width=5),
    "task": LanguageMoEConfig(**BASE, signal="task", lang_width=2),
    "dedicated": LanguageMoEConfig(**BASE, groups=(0, 1, 2), common=2),
    "redundant": LanguageMoEConfig(**BASE, groups=(0, 1, 2), common=2, redundant=True),
    "family": LanguageMoEConfig(**BASE, groups=(0, 1, 0), common=0, own=2),
    "offset": LanguageMoEConfig(**BASE, groups=(0, 1, 2), common=2, alpha=0.3),
}
each = pytest.mark.parametrize("name", CONFIGS)


def rows_of_language(lang, rows):
    return [int(id_) for id_ in lang for _ in range(rows)]


def scores_by_hand(router: LanguageRouter, token: torch.Tensor, lang: int) -> torch.Tensor:
    told = router.embedding.mean(0) if lang == UNKNOWN else router.embedding[lang]
    seen = {"added": lambda: token + told, "concatenated": lambda: torch.cat([token, told]), "task": lambda: told}
    return (router.weight @ seen[router.signal]()).softmax(-1)


@pytest.mark.parametrize("name", ["added", "concatenated", "task"])
def test_a_signal_enters_the_gate_as_told(name):
    layer = drawn(CONFIGS[name].build())
    x, lang = torch.randn(4, 3, 6, dtype=torch.double), [2, 0, UNKNOWN, 1]
    with tell(layer, lang):
        logits, weights, indices = layer.router(x)
        out = layer(x)
    for row, (token, id_) in enumerate(zip(x.reshape(-1, 6), rows_of_language(lang, 3), strict=True)):
        scores = scores_by_hand(layer.router, token, id_)
        best = scores.argsort(descending=True)[:2]
        assert torch.equal(indices[row], best)
        torch.testing.assert_close(weights[row], scores[best] / scores[best].sum())
        torch.testing.assert_close(logits[row].softmax(-1), scores)
    wanted = mixture(layer.experts, x.reshape(-1, 6), indices, weights).view(x.shape)
    if layer.shared_experts is not None:
        wanted = wanted + layer.shared_experts(x)
    torch.testing.assert_close(out, wanted)
    assert (len({tuple(row) for row in indices[:3].tolist()}) == 1) or name != "task"


def chosen_by_hand(config: LanguageMoEConfig, scores: torch.Tensor, lang: int) -> list[int]:
    """Own experts by score, then the open ones by score."""
    owners = expert_groups(config.experts, config.groups, config.common)
    ranked = scores.argsort(descending=True).tolist()
    if lang == UNKNOWN:
        return ranked[: config.top_k]
    own = [e for e in ranked if owners[e] == config.groups[lang]][: config.own]
    outside = [e for e in ranked if (owners[e] != config.groups[lang] if config.redundant else owners[e] == -1)]
    return (own + outside)[: config.top_k]


@pytest.mark.parametrize("name", ["dedicated", "redundant", "family"])
@pytest.mark.parametrize("seed", range(3))
def test_slots_are_filled_from_the_languages_group_first(name, seed):
    torch.manual_seed(seed)
    config = CONFIGS[name]
    router = drawn(config.router(6), std=2.0)
    x, lang = torch.randn(4, 5, 6, dtype=torch.double), [1, 0, UNKNOWN, 2]
    with tell(router, lang):
        logits, weights, indices = router(x)
    for row, id_ in enumerate(rows_of_language(lang, 5)):
        scores = logits[row].softmax(-1)
        assert sorted(indices[row].tolist()) == sorted(chosen_by_hand(config, scores, id_))
        own = scores[indices[row]]
        torch.testing.assert_close(weights[row], own / own.sum())


def test_a_wrong_language_misroutes_unless_the_backup_finds_the_right_experts():
    x, truth, wrong = torch.randn(3, 50, 6), torch.tensor([0, 1, 2]), [1, 2, 0]
    rates = {}
    for name in ("dedicated", "redundant"):
        router = CONFIGS[name].router(6)
        assert isinstance(router, AllocatedRouter)
        torch.nn.init.normal_(router.weight)
        right = torch.tensor(router.owners) == truth.repeat_interleave(50)[:, None]

        def misrouted(index: torch.Tensor, right: torch.Tensor = right) -> torch.Tensor:
            return ~right.gather(-1, index).any(-1)

        with tell(router, truth):
            assert not bool(misrouted(router(x)[2]).any())
        with tell(router, wrong):
            rates[name] = float(misrouted(router(x)[2]).float().mean())
    assert rates["dedicated"] == 1
    assert 0.3 < rates["redundant"] < 0.9


def test_offset_experts_are_base_plus_offset():
    experts = drawn(OffsetExperts(4, 6, 5, 0.3))
    x, indices = torch.randn(7, 6, dtype=torch.double), torch.randint(4, (7, 1))
    weights = torch.ones(7, 1, dtype=torch.double)
    out = experts(x, indices, weights)
    for row, token, e in zip(out, x, indices[:, 0].tolist(), strict=True):
        gate, up = ((experts.up_base[0] + 0.3 * experts.up_proj[e]) @ token).chunk(2)
        down = experts.down_base[0] + 0.3 * experts.down_proj[e]
        torch.testing.assert_close(row, down @ (gate * torch.sigmoid(gate) * up))
    experts.alpha = 0.0
    same = experts(x, indices, weights)
    torch.testing.assert_close(same, experts(x, torch.zeros_like(indices), weights))


@each
def test_counts_are_those_of_the_built_layer(name):
    config = CONFIGS[name]
    layer, x = config.build(), torch.randn(2, 7, 6)
    assert config.parameters() == sum(p.numel() for p in layer.parameters())
    with tell(layer, [0, 2]), FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(x)
    assert counter.get_total_flops() == 14 * config.flops()
    assert config.active_parameters() == config.flops() / 2


def test_equal_parameters_of_the_compared_routers():
    sizes: dict[str, Any] = {"hidden": 64, "experts": 16, "top_k": 2, "width": 64, "languages": 16}
    wide = {"added": 0, "concatenated": 32, "task": 0}
    counts = {LanguageMoEConfig(**sizes, signal=s, lang_width=w).parameters() for s, w in wide.items()}
    assert len(counts) == 1


@pytest.mark.parametrize("name", ["concatenated", "redundant", "offset"])
def test_gradients(name):
    layer = drawn(replace(CONFIGS[name], hidden=3, experts=5, width=2, shared_width=0).build())
    x = torch.randn(2, 1, 3, dtype=torch.double, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def output(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    inputs = [v.detach().clone().requires_grad_() for v in values]
    with tell(layer, [1, 0]):
        assert torch.autograd.gradcheck(output, (x, *inputs))


@each
def test_a_configuration_survives_json(name):
    assert layer_config(json.loads(json.dumps(asdict(CONFIGS[name])))) == CONFIGS[name]


def variant(name: str) -> VariantConfig:
    layer = replace(CONFIGS[name], hidden=16, lang_width=0)
    return VariantConfig(layer, vocab=61, layers=2, heads=1, head_dim=16, context=64)


@pytest.mark.parametrize("name", ["added", "redundant", "offset"])
def test_model_takes_the_language_as_an_argument_and_survives_saving(name, tmp_path):
    model = variant(name).build().eval()
    ids, lang = torch.randint(61, (2, 9)), torch.tensor([0, 2])
    out = model(input_ids=ids, lang=lang).logits
    with tell(model, lang):
        assert torch.equal(model(input_ids=ids).logits, out)
    assert not torch.equal(model(input_ids=ids, lang=[1, 2]).logits, out)
    torch.testing.assert_close(model(input_ids=ids[1:], lang=2).logits, out[1:])
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(input_ids=ids, lang=lang).logits, out)


def test_generation_inside_tell_uses_the_language_at_every_step():
    model = variant("added").build().eval()
    ids = torch.randint(61, (2, 4))
    with tell(model, [0, 2]):
        made = model.generate(ids, max_new_tokens=3, do_sample=False, use_cache=True)
        whole = model(input_ids=made[:, :-1], use_cache=False).logits.argmax(-1)
    assert torch.equal(made[:, -1], whole[:, -1])


def batches(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randint(61, (4, 17), generator=generator).numpy(), torch.arange(4).remainder(3).numpy()


@pytest.mark.parametrize("name", ["concatenated", "redundant", "offset"])
def test_the_trainer_tells_the_language_and_resumes_bit_for_bit(name, tmp_path):
    config = TrainConfig(variant(name), tokens=4 * 64, batch=4, length=16, warmup=2, compile=False, probes=())
    whole = Trainer(config, batches, tmp_path / "whole").run()
    for _ in range(2):
        resumed = Trainer(config, batches, tmp_path / "parts").run(stop_after=2)
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert all(one.lang is None for one in listeners(whole))


@pytest.mark.parametrize(
    ("lang", "message"),
    [
        (None, "no language was told: run the model inside `tell"),
        ([0, 3], r"reach from 0 to 3, the model knows 0 to 2; use UNKNOWN \(-1\)"),
        (-2, "reach from -2 to -2"),
        ([0, 1, 2], "3 languages were told, the batch has 2 sequences"),
        ([], "nothing to tell"),
    ],
)
@pytest.mark.parametrize("name", ["added", "redundant"])
def test_a_language_that_is_missing_or_not_known_is_refused(name, lang, message):
    layer, x = CONFIGS[name].build(), torch.randn(2, 3, 6)
    told = nullcontext() if lang is None else tell(layer, torch.as_tensor(lang))
    with pytest.raises(LayerError, match=message), told:
        layer(x)
    assert all(one.lang is None for one in listeners(layer))


def test_telling_a_model_that_does_not_listen_is_refused():
    layer = SparseMoEConfig(6, experts=4, top_k=2, width=4).build()
    with pytest.raises(LayerError, match="no layer of the model listens"), tell(layer, 0):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "give one of the two"),
        ({"signal": "added", "groups": (0, 1, 2), "common": 2}, "give one of the two"),
        ({"signal": "spoken"}, "unknown language signal 'spoken'"),
        ({"signal": "added", "lang_width": 3}, "width 3 cannot be added to tokens of width 6"),
        ({"signal": "task", "languages": 0}, "0 languages cannot be embedded"),
        ({"groups": (0, 1, 2)}, "8 experts cannot be shared out evenly.*multiple of 3, so 6 or 9 in all"),
        ({"groups": (0, 1, 2), "common": 7}, "cannot be shared out evenly"),
        ({"groups": (0, 1)}, "2 groups are given for 3 languages"),
        ({"groups": (0, 2, 2)}, "not numbered from 0 without a gap"),
        ({"groups": (0, 1, 1), "own": 1}, "1 own and 1 further slots cannot be filled from 4 experts of a group and 0"),
        ({"groups": (0, 1, 2), "common": 2, "bias_rate": 0.1}, "cannot be balanced by a correction"),
        ({"groups": (0, 1, 2), "common": 2, "alpha": -1.0}, "alpha = -1.0 must not be negative"),
    ],
)
def test_what_cannot_be_built_is_refused(change, message):
    with pytest.raises(LayerError, match=message):
        LanguageMoEConfig(**BASE | change)


def test_families_become_group_numbers():
    assert groups_of(["Romance", "Slavic", "Romance", "Greek"]) == (0, 1, 0, 2)
