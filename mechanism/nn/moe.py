"""The sparse Mixture-of-Experts layer."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from .accounting import Count, Counted, matrix
from .experts import Experts, check_feed_forward, count_feed_forward
from .feedforward import DenseConfig, FeedForward
from .router import TopKRouter, check_routing


@dataclass(frozen=True)
class SparseMoEConfig(Counted):
    """A sparse layer: `y = sum over the top k of weight_e expert_e(x)` (arXiv 2411.16205, eq. 1), and shared experts.

    Attributes:
        hidden: width of a token; experts: routed experts; top_k: slots per token; width: inner width of one expert.
        activation: `relu`, `gelu` or `swiglu`; precision of experts: `full` or `b1.58`.
        scoring, normalise, z_weight, bias_rate: see `TopKRouter`.
        shared_width: inner width of all shared experts together, which every token passes; 0 for none.

    Raises:
        LayerError: sizes or names that cannot be, or a router that could not learn.
    """

    hidden: int
    experts: int
    top_k: int
    width: int
    activation: str = "swiglu"
    precision: str = "full"
    scoring: str = "softmax"
    normalise: bool = True
    z_weight: float = 0.0
    bias_rate: float = 0.0
    shared_width: int = 0
    kind: str = field(default="sparse", init=False)

    def __post_init__(self) -> None:
        check_feed_forward(self.hidden, self.width, self.activation, self.precision)
        check_routing(self.experts, self.top_k, self.scoring, self.normalise, self.z_weight, self.bias_rate)
        if self.shared_width:
            self.shared()

    def shared(self) -> DenseConfig:
        """The shared experts as one network."""
        return DenseConfig(self.hidden, self.shared_width, self.activation, self.precision)

    def build(self) -> nn.Module:
        """The layer, freshly initialised from torch's global generator."""
        return SparseMoE(self)

    def router(self, d: int, rows_per_token: int = 1) -> TopKRouter:
        """The router, for rows of width `d`."""
        return TopKRouter(
            d, self.experts, self.top_k, self.scoring, self.normalise, self.z_weight, self.bias_rate, rows_per_token
        )

    def routed_experts(self) -> Experts:
        """The routed experts."""
        return Experts(self.experts, self.hidden, self.width, self.activation, self.precision)

    def parts(self) -> dict[str, Count]:
        """Router, experts and shared experts."""
        return self._routed(self.hidden, 1) | self._shared()

    def _routed(self, d: int, rows: int) -> dict[str, Count]:
        """Router and experts on `rows` rows of width `d` a token. A matrix of the router serves every row."""
        gate = matrix(d, self.experts)
        experts = count_feed_forward(d, self.width, self.activation, self.experts, self.top_k * rows)
        return {"router": Count(gate.total, gate.active * rows, gate.flops * rows), "experts": experts}

    def _shared(self) -> dict[str, Count]:
        return {"shared": self.shared().count()} if self.shared_width else {}


class SparseMoE(nn.Module):
    """Routed experts and shared experts, `(..., d) -> (..., d)`.

    Attributes:
        router, experts: what `mechanism.trace` observes; shared_experts: None if there are none.
    """

    def __init__(self, config: SparseMoEConfig) -> None:
        super().__init__()
        self.config = config
        self.router = config.router(config.hidden)
        self.experts = config.routed_experts()
        self.shared_experts = FeedForward(config.shared()) if config.shared_width else None

    def forward(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        flat = hidden.reshape(-1, hidden.shape[-1])
        _, weights, indices = self.router(hidden)
        out = self.experts(flat, indices, weights).view(hidden.shape)
        return out if self.shared_experts is None else out + self.shared_experts(hidden)
