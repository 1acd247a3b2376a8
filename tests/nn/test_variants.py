import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from mechanism.nn import parity
from mechanism.nn.auto import layer_config
from mechanism.nn.bitlinear import BitLinear
from mechanism.nn.errors import LayerError
from mechanism.nn.feedforward import DenseConfig
from mechanism.nn.lm import LMConfig, routers
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.train_config import TrainConfig, read_config
from mechanism.nn.training import Trainer
from mechanism.nn.variants import VariantConfig

from .test_training import batches

SPARSE = SparseMoEConfig(16, experts=4, top_k=2, width=24)
LAYERS: dict[str, Any] = {
    "dense": DenseConfig(16, 12),
    "sparse": SPARSE,
    "sigmoid": replace(SPARSE, scoring="sigmoid", bias_rate=0.01, z_weight=0.1, shared_width=8),
    "top-1": replace(SPARSE, top_k=1, normalise=False, activation="gelu"),
    "multi-head": MultiHeadMoEConfig(16, experts=6, top_k=2, width=10, heads=2),
    "bitnet": MultiHeadMoEConfig(16, experts=6, top_k=2, width=10, heads=4, shared_width=8, precision="b1.58"),
}


def variant(name: str, **options: Any) -> VariantConfig:
    options = {"projections": "b1.58" if name == "bitnet" else "full", **options}
    return VariantConfig(
        LAYERS[name], **{"vocab": 61, "layers": 2, "heads": 1, "head_dim": 16, "context": 64, **options}
    )


@pytest.mark.parametrize("name", LAYERS)
def test_counts_are_those_of_the_built_model(name):
    config = variant(name)
    model = config.build().eval()
    model.set_attn_implementation("eager")
    assert config.parameters() == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, 9, dtype=torch.long), use_cache=False)
    assert counter.get_total_flops() == 9 * sum(p.flops for p in config.parts(9).values())


def test_the_variant_of_the_embedded_layer_counts_as_the_embedded_model():
    layer = SparseMoEConfig(192, experts=16, top_k=2, width=128)
    own = VariantConfig(layer)
    assert own.parameters() == LMConfig().parameters()
    assert own.active_parameters() == LMConfig().active_parameters()
    assert own.flops() == LMConfig().flops()
    assert replace(own, layer=parity.dense(layer)).flops() == LMConfig(experts=0).flops()


def test_the_variant_of_the_embedded_layer_computes_what_the_embedded_model_does():
    embedded = LMConfig(61, hidden=16, layers=2, heads=1, head_dim=16, experts=4, top_k=2, expert_width=24).build()
    own = variant("sparse").build()
    names = {"gate.weight": "router.weight", "gate_up_proj": "up_proj"}
    state = embedded.state_dict()
    for old, new in names.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    own.load_state_dict(state)
    ids = torch.randint(61, (2, 9))
    torch.testing.assert_close(own(input_ids=ids).logits, embedded(input_ids=ids).logits)


@pytest.mark.parametrize("name", LAYERS)
def test_saved_and_loaded_by_the_auto_class_bit_for_bit(name, tmp_path):
    model = variant(name).build().eval()
    for router in routers(model):
        correction: Any = router.correction
        if correction is not None:
            correction.uniform_()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is type(model)
    for (key, a), b in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    ids = torch.randint(61, (2, 9))
    assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)
    projections = [type(m) is BitLinear for n, m in loaded.named_modules() if n.endswith("_proj") and "attn" in n]
    assert projections == [name == "bitnet"] * 8


def test_dense_layers_stand_between():
    config = variant("sparse", layers=4, every=2, dense_width=12)
    model = config.build()
    assert [i for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "router")] == [1, 3]
    assert config.parameters() == sum(p.numel() for p in model.parameters())
    with pytest.raises(LayerError, match="every = 2 and dense_width = 0 do not fit"):
        variant("sparse", every=2)


def test_router_logits_of_transformers_are_refused():
    with pytest.raises(LayerError, match=r"use mechanism\.trace\.attach"):
        variant("sparse").build()(input_ids=torch.zeros(1, 3, dtype=torch.long), output_router_logits=True)


@pytest.mark.parametrize("name", LAYERS)
def test_a_configuration_survives_json(name):
    model = variant(name)
    config = TrainConfig(model=model)
    payload = json.loads(json.dumps(asdict(config)))
    assert read_config(payload) == config
    assert layer_config(asdict(model.layer)) == model.layer


def test_unknown_kinds_and_keys_are_refused():
    with pytest.raises(LayerError, match="unknown kind of layer 'wide'; use dense, sparse, multi_head"):
        layer_config({"kind": "wide"})
    with pytest.raises(TypeError, match="heads"):
        layer_config({**asdict(SPARSE), "heads": 2})


@pytest.mark.parametrize("name", ["dense", "sigmoid", "top-1", "multi-head", "bitnet"])
def test_every_variant_trains_and_resumes_bit_for_bit(name, tmp_path):
    config = TrainConfig(variant(name), tokens=4 * 64, batch=4, length=16, warmup=2, compile=False, probes=())
    whole = Trainer(config, batches, tmp_path / "whole").run()
    for _ in range(2):
        resumed = Trainer(config, batches, tmp_path / "parts").run(stop_after=2)
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    if name == "sigmoid":
        own: list[Any] = routers(whole)
        assert all(bool(router.correction.any()) for router in own)


def test_gradients_are_finite_where_one_token_opens_every_sequence(tmp_path):
    """A zero embedding, which transformers gives a padding token, would overflow in 1.58 bits."""
    layer = MultiHeadMoEConfig(96, experts=9, top_k=3, width=64, heads=3, precision="b1.58")
    model = VariantConfig(layer, 61, layers=6, heads=3, head_dim=32, projections="b1.58")
    config = TrainConfig(model, batch=4, length=16, compile=False)

    def opened(step):
        ids = batches(step)
        ids[:, 0] = 0
        return ids

    assert np.isfinite(Trainer(config, opened, tmp_path).advance()["grad_norm"])


def test_the_z_loss_is_added_per_layer(tmp_path):
    gradients = []
    for z_weight in (0.0, 5.0):
        layer = replace(SPARSE, z_weight=z_weight)
        config = TrainConfig(replace(variant("sparse"), layer=layer), batch=4, length=16, compile=False, balance=0.0)
        trainer = Trainer(config, batches, tmp_path / str(z_weight))
        loss, _, *z = trainer.losses(torch.as_tensor(batches(0)))
        assert len(z) == (2 if z_weight else 0)
        sum(z, loss).backward()
        own: list[Any] = routers(trainer.model)
        gradients.append([router.weight.grad.clone() for router in own])
    assert all(not torch.equal(a, b) for a, b in zip(*gradients, strict=True))
