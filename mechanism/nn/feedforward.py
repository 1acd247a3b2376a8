"""The dense feed-forward layer: a baseline, and the shared expert of sparse layers."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor, nn

from .accounting import Count, Counted
from .bitlinear import linear
from .experts import ACTIVATIONS, MATRICES, check_feed_forward, count_feed_forward
from .router import STD


@dataclass(frozen=True)
class DenseConfig(Counted):
    """A dense feed-forward layer.

    Attributes:
        hidden: width of a token; width: inner width; activation: `relu`, `gelu` or `swiglu`; precision: `full` or
            `b1.58`.

    Raises:
        LayerError: sizes or names that cannot be.
    """

    hidden: int
    width: int
    activation: str = "swiglu"
    precision: str = "full"
    kind: str = field(default="dense", init=False)

    def __post_init__(self) -> None:
        check_feed_forward(self.hidden, self.width, self.activation, self.precision)

    def build(self) -> "FeedForward":
        """The layer, freshly initialised from torch's global generator."""
        return FeedForward(self)

    def parts(self) -> dict[str, Count]:
        """One network."""
        return {"dense": count_feed_forward(self.hidden, self.width, self.activation)}


class FeedForward(nn.Module):
    """`down(activation(up(x)))` without bias, `(..., d) -> (..., d)`."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.width * (MATRICES[config.activation] - 1)
        self.up_proj = linear(config.hidden, inner, config.precision)
        self.down_proj = linear(config.width, config.hidden, config.precision)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with standard deviation `STD`."""
        nn.init.normal_(self.up_proj.weight, std=STD)
        nn.init.normal_(self.down_proj.weight, std=STD)

    def forward(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.down_proj(ACTIVATIONS[self.config.activation](self.up_proj(hidden)))
