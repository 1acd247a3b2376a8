"""Parameters and FLOPs, counted from shapes alone."""

from dataclasses import dataclass
from functools import reduce
from operator import add


@dataclass(frozen=True)
class Count:
    """What a layer holds, and what a token costs in it.

    Attributes:
        total: parameters held.
        active: parameters a token is multiplied with. A matrix that serves a token twice (two sub-tokens that choose
            one expert) counts twice, as its FLOPs do.
        flops: of the matrix products of one token's forward pass, a multiplication and an addition counting two, as
            `torch.utils.flop_counter` counts. Biases, activations, softmax and top-k are not in it.
    """

    total: int = 0
    active: int = 0
    flops: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.total + other.total, self.active + other.active, self.flops + other.flops)

    def __mul__(self, times: int) -> "Count":
        return Count(self.total * times, self.active * times, self.flops * times)


def matrix(d_in: int, d_out: int, copies: int = 1, uses: int = 1, bias: bool = False) -> Count:
    """`copies` matrices `(d_out, d_in)`, of which a token passes `uses`."""
    size, extra = d_in * d_out, d_out if bias else 0
    return Count(copies * (size + extra), uses * (size + extra), 2 * uses * size)


class Counted:
    """A configuration that counts what it builds."""

    def parts(self) -> dict[str, Count]:
        """The count of each part, per token."""
        raise NotImplementedError

    def count(self) -> Count:
        """The whole."""
        return reduce(add, self.parts().values(), Count())

    def parameters(self) -> int:
        """Parameters in all."""
        return self.count().total

    def active_parameters(self) -> int:
        """Parameters a token passes through; see `Count`."""
        return self.count().active

    def flops(self) -> int:
        """FLOPs of one token's forward pass; see `Count`."""
        return self.count().flops
