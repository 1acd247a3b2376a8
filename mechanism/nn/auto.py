"""The embedded architecture with other feed-forward layers, as transformers classes that AutoModelForCausalLM loads."""

from collections.abc import Mapping
from functools import wraps
from typing import Any, no_type_check

from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from .bitlinear import BitLinear
from .errors import LayerError
from .experts import Experts
from .feedforward import DenseConfig, FeedForward
from .language import tell
from .language_moe import LanguageMoEConfig
from .moe import SparseMoEConfig
from .multihead import MultiHeadMoE, MultiHeadMoEConfig
from .router import TopKRouter

LayerConfig = DenseConfig | SparseMoEConfig | MultiHeadMoEConfig | LanguageMoEConfig
_KINDS: dict[str, type[LayerConfig]] = {
    "dense": DenseConfig, "sparse": SparseMoEConfig, "multi_head": MultiHeadMoEConfig, "language": LanguageMoEConfig,
}  # fmt: skip


def layer_config(payload: Mapping[str, Any]) -> LayerConfig:
    """A layer's configuration from a mapping with its `kind`; `dataclasses.asdict` is the way back.

    Raises:
        LayerError: no such kind, or see the configuration.
        TypeError: a key that it does not have.
    """
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in payload.items()}
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise LayerError(f"unknown kind of layer {kind!r}; use {', '.join(_KINDS)}")
    return _KINDS[kind](**fields)


@no_type_check  # transformers' configurations take fields that their classes do not declare
class MechanismMoeConfig(Qwen3Config):
    """Configuration of `MechanismMoeForCausalLM`: a Qwen3 configuration, and what differs.

    Attributes:
        feed_forward: `asdict` of the layer configuration of each decoder layer.
        projections: precision of the attention projections, `full` or `b1.58`.
        num_experts, num_experts_per_tok, moe_intermediate_size: of the sparse layers, where other programs look for
            them; 0 without any. The layers are built from `feed_forward`.
    """

    model_type = "mechanism_moe"
    feed_forward: list | None = None
    projections: str = "full"
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0


class MechanismMoeForCausalLM(Qwen3ForCausalLM):
    """Qwen3, whose attention and norms are those of Qwen3-MoE, with the feed-forward layers of `config.feed_forward`.

    A call takes `lang` besides, the language id of each sequence, for layers that listen to it (`tell` is for
    generation and for calls of parts of the model).

    Raises:
        LayerError: not one layer configuration for each decoder layer; on a call with `output_router_logits`; see
            `mechanism.nn.language.tell`.
    """

    config_class = MechanismMoeConfig
    config: MechanismMoeConfig

    def __init__(self, config: MechanismMoeConfig) -> None:
        layers = [layer_config(payload) for payload in config.feed_forward or ()]
        if len(layers) != config.num_hidden_layers:
            raise LayerError(
                f"{len(layers)} feed-forward layers are configured for {config.num_hidden_layers} decoder layers"
            )
        super().__init__(config)
        for decoder, own in zip(self.model.layers, layers, strict=True):
            decoder.mlp = own.build()
            if config.projections == "b1.58":
                _quantise(decoder.self_attn)

    @wraps(Qwen3ForCausalLM.forward)
    def forward(self, *args, lang=None, **kwargs):
        if kwargs.get("output_router_logits"):
            raise LayerError(
                "output_router_logits is not available here: use mechanism.trace.attach to observe routing and "
                "mechanism.nn.router.balance_loss to train it"
            )
        if lang is None:
            return super().forward(*args, **kwargs)
        with tell(self, lang):
            return super().forward(*args, **kwargs)

    def set_experts_implementation(self, experts_implementation: str | dict) -> None:
        """Refused with a ValueError: these experts have one implementation."""
        raise ValueError(f"{type(self).__name__} has one experts implementation, its own")

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TopKRouter | Experts | FeedForward | MultiHeadMoE):
            module.reset_parameters()


def _quantise(attention: nn.Module) -> None:
    """Put `BitLinear` in the place of an attention's projections; they keep their weights."""
    for name, child in list(attention.named_children()):
        if isinstance(child, nn.Linear):
            own = BitLinear(child.in_features, child.out_features, bias=child.bias is not None)
            own.weight, own.bias = child.weight, child.bias
            setattr(attention, name, own)


def register() -> None:
    """Make these models known to `AutoConfig` and `AutoModelForCausalLM` (idempotent)."""
    AutoConfig.register(MechanismMoeConfig.model_type, MechanismMoeConfig, exist_ok=True)
    AutoModelForCausalLM.register(MechanismMoeConfig, MechanismMoeForCausalLM, exist_ok=True)


register()
