"""The multi-head Mixture-of-Experts layer (MH-MoE)."""

from dataclasses import dataclass, field

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from .accounting import Count, matrix
from .bitlinear import linear
from .errors import LayerError
from .experts import Experts
from .feedforward import FeedForward
from .moe import SparseMoEConfig


@dataclass(frozen=True)
class MultiHeadMoEConfig(SparseMoEConfig):
    """MH-MoE (Huang et al. 2024, arXiv 2411.16205, eq. 2-4): a head layer, the token cut into `heads` sub-tokens of
    width `hidden / heads`, each routed on its own, put together again, and a merge layer.

    Attributes:
        width: inner width of one expert, whose input is a sub-token.
        heads: sub-tokens of a token.
        head, merge: whether there is a head, a merge layer (both square matrices).
        bias: whether they have a bias: the equations have none, the code of the predecessor (arXiv 2404.15045) has.
        shared_width: of shared experts on whole tokens, beside head and merge layer.

    Raises:
        LayerError: see `SparseMoEConfig`; a width that the heads do not divide.
    """

    heads: int = 2
    head: bool = True
    merge: bool = True
    bias: bool = False
    kind: str = field(default="multi_head", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1 or self.hidden % self.heads:
            raise LayerError(f"a token of width {self.hidden} cannot be cut into {self.heads} heads of one width")

    @property
    def head_width(self) -> int:
        """Width of a sub-token."""
        return self.hidden // self.heads

    def build(self) -> nn.Module:
        """The layer, freshly initialised from torch's global generator."""
        return MultiHeadMoE(self)

    def parts(self) -> dict[str, Count]:
        """Head layer, router, experts, merge layer, shared experts; the router and experts serve every sub-token."""
        square = matrix(self.hidden, self.hidden, bias=self.bias)
        squares = {name: square for name in ("head", "merge") if getattr(self, name)}
        return squares | self._routed(self.head_width, self.heads) | self._shared()


class MultiHeadMoE(nn.Module):
    """Head layer, split, routed experts on sub-tokens, merge layer, and shared experts: `(..., d) -> (..., d)`.

    A token's sub-tokens are consecutive rows of the router; `mechanism.trace` shows them as the axis `head`.

    Attributes:
        head, merge: square linear maps, or None; router, experts: on sub-tokens; shared_experts: on tokens, or None.
    """

    def __init__(self, config: MultiHeadMoEConfig) -> None:
        super().__init__()
        self.config = config
        d, sub = config.hidden, config.head_width
        self.head = linear(d, d, config.precision, bias=config.bias) if config.head else None
        self.router = config.router(sub, config.heads)
        self.experts = Experts(config.experts, sub, config.width, config.activation, config.precision)
        self.merge = linear(d, d, config.precision, bias=config.bias) if config.merge else None
        self.shared_experts = FeedForward(config.shared()) if config.shared_width else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Head and merge layer as in the authors' code: Xavier uniform, the head layer's with gain `1 / sqrt(2)`, the
        merge layer's bias zero. The rest initialises itself."""
        if self.head is not None:
            nn.init.xavier_uniform_(self.head.weight, gain=2**-0.5)
        if self.merge is not None:
            nn.init.xavier_uniform_(self.merge.weight)
            if self.merge.bias is not None:
                nn.init.zeros_(self.merge.bias)

    def forward(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        mixed = hidden if self.head is None else self.head(hidden)
        rows = rearrange(mixed, "... (head sub) -> (... head) sub", head=self.config.heads)
        _, weights, indices = self.router(rows)
        out = self.experts(rows, indices, weights)
        out = rearrange(out, "(token head) sub -> token (head sub)", head=self.config.heads).view(hidden.shape)
        if self.merge is not None:
            out = self.merge(out)
        return out if self.shared_experts is None else out + self.shared_experts(hidden)
