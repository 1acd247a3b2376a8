"""Experts that share a base: the matrices of expert e are `shared + alpha * offset_e`."""

import torch
from torch import Tensor, nn

from .accounting import Count
from .errors import LayerError
from .experts import Experts, count_feed_forward
from .router import STD


class OffsetExperts(Experts):
    """`Experts` whose matrices are a shared base plus `alpha` times their own offset.

    With `alpha = 0` all experts are the base; the larger it is, the more of a gradient step goes into what is specific.

    Attributes:
        up_proj, down_proj: the offsets; up_base, down_base: the base, `(1, inner, d)` and `(1, d, width)`.

    Raises:
        LayerError: a negative alpha, or see `Experts`.
    """

    def __init__(self, num_experts: int, d: int, width: int, alpha: float, **options) -> None:
        if not alpha >= 0:
            raise LayerError(f"alpha = {alpha} must not be negative")
        super().__init__(num_experts, d, width, **options)
        self.alpha = alpha
        self.up_base = nn.Parameter(torch.empty(1, *self.up_proj.shape[1:]))
        self.down_base = nn.Parameter(torch.empty(1, *self.down_proj.shape[1:]))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Base and offsets normal with standard deviation `STD`."""
        super().reset_parameters()
        if hasattr(self, "down_base"):
            nn.init.normal_(self.up_base, std=STD)
            nn.init.normal_(self.down_base, std=STD)

    def matrices(self) -> tuple[Tensor, Tensor]:
        """Base plus scaled offset of each expert."""
        return self.up_base + self.alpha * self.up_proj, self.down_base + self.alpha * self.down_proj


def count_offset_experts(hidden: int, width: int, activation: str, experts: int, uses: int) -> Count:
    """What `OffsetExperts` hold, and what a token costs. Adding base and offset is not in the FLOPs, and a sum of two
    parameters counts as one active one: a token is multiplied with the sum."""
    base = count_feed_forward(hidden, width, activation, 1, 0)
    return base + count_feed_forward(hidden, width, activation, experts, uses)
