"""The small causal language model of the report: transformers' own Qwen3 classes, sparse or dense."""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from .accounting import Count, Counted, matrix


@dataclass(frozen=True)
class LMConfig(Counted):
    """A Qwen3-MoE model, or with `experts = 0` its dense twin: the same model whose feed-forward is as wide as the
    `top_k` experts that a token of the sparse model passes through.

    Attributes:
        vocab: vocabulary size; hidden: residual width; layers: decoder layers; heads: attention heads of width
            `head_dim`; experts: routed experts per layer; top_k: experts per token; expert_width: inner width of one
            expert; context: positions.
    """

    vocab: int = 12_288
    hidden: int = 192
    layers: int = 8
    heads: int = 3
    head_dim: int = 64
    experts: int = 16
    top_k: int = 2
    expert_width: int = 128
    context: int = 1024

    def build(self) -> PreTrainedModel:
        """The model, freshly initialised from torch's global generator, in float32."""
        shared = {
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.top_k * self.expert_width,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
        }
        if not self.experts:
            return Qwen3ForCausalLM(Qwen3Config(**shared))
        config = Qwen3MoeConfig(
            **shared,
            num_experts=self.experts,
            num_experts_per_tok=self.top_k,
            moe_intermediate_size=self.expert_width,
            norm_topk_prob=True,
            decoder_sparse_step=1,
        )
        return Qwen3MoeForCausalLM(config)

    def parts(self, length: int = 0) -> dict[str, Count]:
        """Those of `count_frame`, routers, and experts or the dense feed-forward."""
        experts = matrix(self.hidden, self.expert_width, self.experts or self.top_k, self.top_k) * 3
        return {
            **count_frame(self.vocab, self.hidden, self.layers, self.heads, self.head_dim, length),
            "router": matrix(self.hidden, self.experts) * self.layers,
            "experts": experts * self.layers,
        }


def count_frame(vocab: int, hidden: int, layers: int, heads: int, head_dim: int, length: int = 0) -> dict[str, Count]:
    """What stands around the feed-forward layers: `embedding`, which is the output head as well, `attention` and
    `norms`.

    Args:
        length: of the sequence; every token's scores and values are counted over all of it, as they are computed. 0
            leaves them out.
    """
    one = matrix(hidden, heads * head_dim) * 4 + Count(2 * head_dim, 2 * head_dim, 4 * length * heads * head_dim)
    norms = (2 * layers + 1) * hidden
    return {"embedding": matrix(vocab, hidden), "attention": one * layers, "norms": Count(norms, norms)}


def routers(model: PreTrainedModel) -> list[nn.Module]:
    """The routers of a sparse model built here, by layer; empty for the dense twin."""
    return [module for name, module in model.named_modules() if name.endswith((".mlp.gate", ".mlp.router"))]
