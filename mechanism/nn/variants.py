"""The small causal language model with any feed-forward layer: what the layers of `nn` are compared in."""

from dataclasses import asdict, dataclass

from transformers import PreTrainedModel

from .accounting import Count, Counted
from .auto import LayerConfig, MechanismMoeConfig, MechanismMoeForCausalLM
from .bitlinear import PRECISIONS
from .errors import LayerError
from .feedforward import DenseConfig
from .lm import count_frame


@dataclass(frozen=True)
class VariantConfig(Counted):
    """The architecture of `LMConfig` with its feed-forward layers replaced.

    Attributes:
        layer: the feed-forward layer; its `hidden` is the residual width.
        vocab: vocabulary size; layers: decoder layers; heads: attention heads of width `head_dim`; context: positions.
        every: `layer` stands in every so-manieth decoder layer, beginning with number `every - 1`; between them stand
            dense layers of inner width `dense_width`.
        projections: precision of the attention projections, `full` or `b1.58`.

    Raises:
        LayerError: no dense width for the layers between, or one without layers between; an unknown precision.
    """

    layer: LayerConfig
    vocab: int = 12_288
    layers: int = 8
    heads: int = 3
    head_dim: int = 64
    context: int = 1024
    every: int = 1
    dense_width: int = 0
    projections: str = "full"

    def __post_init__(self) -> None:
        if self.every < 1 or (self.every > 1) != (self.dense_width > 0):
            raise LayerError(
                f"every = {self.every} and dense_width = {self.dense_width} do not fit: dense layers stand between "
                "where every is over 1, and only there"
            )
        if self.projections not in PRECISIONS:
            raise LayerError(f"unknown precision {self.projections!r}; use {' or '.join(PRECISIONS)}")

    @property
    def hidden(self) -> int:
        """Residual width."""
        return self.layer.hidden

    def feed_forward(self) -> list[LayerConfig]:
        """The layer of each decoder layer."""
        between = None
        if self.every > 1:
            between = DenseConfig(self.hidden, self.dense_width, self.layer.activation, self.layer.precision)
        return [between if between and (i + 1) % self.every else self.layer for i in range(self.layers)]

    def build(self) -> PreTrainedModel:
        """The model, freshly initialised from torch's global generator, in float32.

        No token is a padding token: transformers would begin its embedding at zero, and where end-of-text opens every
        sequence, the norms of a 1.58-bit model turn that into gradients that overflow.
        """
        routed = not isinstance(self.layer, DenseConfig)
        config = MechanismMoeConfig(
            vocab_size=self.vocab, hidden_size=self.hidden, num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.heads, head_dim=self.head_dim,
            intermediate_size=self.layer.width, max_position_embeddings=self.context, tie_word_embeddings=True,
            bos_token_id=0, eos_token_id=0, pad_token_id=None, num_experts=getattr(self.layer, "experts", 0),
            num_experts_per_tok=getattr(self.layer, "top_k", 0), moe_intermediate_size=self.layer.width * routed,
            feed_forward=[asdict(layer) for layer in self.feed_forward()], projections=self.projections,
        )  # fmt: skip
        return MechanismMoeForCausalLM(config)

    def parts(self, length: int = 0) -> dict[str, Count]:
        """Those of `count_frame`, and each part of the feed-forward layers."""
        found = count_frame(self.vocab, self.hidden, self.layers, self.heads, self.head_dim, length)
        for layer in self.feed_forward():
            for name, part in layer.parts().items():
                found[name] = found.get(name, Count()) + part
        return found
