"""What of a model is tuned for a new language: the router, few experts, with or without the word embedding, an adapter,
or everything.

An adapter (Houlsby et al. 2019, arXiv 1902.00751, here beside the experts instead of behind them) is a shared expert
whose output begins at zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .auto import LayerConfig
from .errors import LayerError
from .feedforward import FeedForward
from .moe import SparseMoEConfig
from .variants import VariantConfig

METHODS = {"router": False, "experts": True, "experts + embedding": True, "adapter": True, "all": False}
"""Whether each has a size."""


@dataclass(frozen=True)
class Tuning:
    """What is tuned.

    Attributes:
        method: `router` (weights and language embedding of every router), `experts` (`size` experts in every layer),
            `experts + embedding` (these and the word embedding), `adapter` (of inner width `size`), or `all`.
        size: of experts or adapter; 0 for the others.

    Raises:
        LayerError: an unknown method, or a size that does not belong to it.
    """

    method: str
    size: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise LayerError(f"unknown method {self.method!r}; use {', '.join(METHODS)}")
        if METHODS[self.method] != (self.size > 0):
            raise LayerError(
                f"method {self.method!r} with size {self.size}: experts and adapters need one, others none"
            )

    @property
    def name(self) -> str:
        """For tables: the method, with its size."""
        first, plus, rest = self.method.partition(" + ")
        return f"{first} {self.size}{plus}{rest}" if self.size else self.method

    @property
    def picks(self) -> bool:
        """Whether experts have to be named."""
        return self.method.startswith("experts")

    def config(self, config: VariantConfig) -> VariantConfig:
        """The architecture of the tuned model: that of the base, and the adapter."""
        if self.method != "adapter":
            return config
        layer: LayerConfig = config.layer
        if not isinstance(layer, SparseMoEConfig) or layer.shared_width:
            raise LayerError("an adapter stands where a sparse layer has no shared expert")
        return replace(config, layer=replace(layer, shared_width=self.size))

    def load(self, config: VariantConfig, state: Mapping[str, Tensor]) -> PreTrainedModel:
        """The tuned model, which computes at first what the base of this configuration and `state_dict` does."""
        model = self.config(config).build()
        missing, unexpected = model.load_state_dict(dict(state), strict=False)
        if unexpected or any("shared_experts" not in name for name in missing):
            raise LayerError(f"the weights are not those of the base: {[*missing, *unexpected][:3]}")
        for module in model.modules():
            if isinstance(module, FeedForward) and self.method == "adapter":
                nn.init.zeros_(module.down_proj.weight)
        return model

    def freeze(self, model: PreTrainedModel, experts: Sequence[Sequence[int]] = ()) -> int:
        """Let only what is tuned get gradients; the number of those parameters.

        Args:
            experts: the tuned experts of each layer that has any, for `experts` and `experts + embedding`.

        Raises:
            LayerError: not `size` distinct experts for each layer.
        """
        if self.picks:
            return self._freeze_experts(model, experts)
        parts = {"router": ".router.", "adapter": ".shared_experts.", "all": ""}[self.method]
        for name, p in model.named_parameters():
            p.requires_grad_(parts in name)
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    def _freeze_experts(self, model: PreTrainedModel, chosen: Sequence[Sequence[int]]) -> int:
        layers = [layer.mlp.experts for layer in model.model.layers if hasattr(layer.mlp, "experts")]
        if len(chosen) != len(layers) or any(len(set(own)) != self.size for own in chosen):
            raise LayerError(f"{self.size} experts have to be named for each of {len(layers)} layers, got {chosen}")
        model.requires_grad_(False)
        count = 0
        for module, own in zip(layers, chosen, strict=True):
            for p in module.parameters():
                p.requires_grad_(True)
                p.register_hook(partial(_rows_only, own))
                count += p[list(own)].numel()
        if self.method == "experts + embedding":
            count += model.get_input_embeddings().weight.requires_grad_(True).numel()
        return count


def _rows_only(rows: Sequence[int], gradient: Tensor) -> Tensor:
    """Gradient of the named rows; that of the others is zero."""
    kept = torch.zeros_like(gradient)
    kept[list(rows)] = gradient[list(rows)]
    return kept
