"""The sparse layer for many languages: what its router knows of them, and what its experts share."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .accounting import Count, matrix
from .allocation import AllocatedRouter, expert_groups
from .errors import LayerError
from .experts import Experts, count_feed_forward
from .language import LanguageRouter
from .moe import SparseMoEConfig
from .router import STD, TopKRouter

SIGNALS = ("added", "concatenated", "task")


class OffsetExperts(Experts):
    """`Experts` whose matrices are a shared base plus `alpha` times their own offset.

    With `alpha = 0` all experts are the base; the larger it is, the more of a gradient step goes into what is specific.

    Attributes:
        up_proj, down_proj: the offsets; up_base, down_base: the base, `(1, inner, d)` and `(1, d, width)`.
    """

    def __init__(self, num_experts: int, d: int, width: int, alpha: float, **options) -> None:
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


@dataclass(frozen=True)
class LanguageMoEConfig(SparseMoEConfig):
    """A sparse layer whose router is told the language of each sequence (see `mechanism.nn.language.tell`).

    Attributes:
        languages: ids that the router knows.
        signal: how its gate sees the language: `none`, `added`, `concatenated` or `task`; see `LanguageRouter`.
        lang_width: width of the language's embedding; 0 for `hidden`.
        groups: group of each language, to which experts are allocated instead; () for none. A group of its own for each
            language gives experts of languages, a group per family those of families.
        common, own, redundant: see `AllocatedRouter`.
        alpha: experts are a shared base plus `alpha` times an offset (see `OffsetExperts`); None for plain experts.

    Raises:
        LayerError: see `SparseMoEConfig`; neither signal nor groups, or both; what cannot be allocated or embedded.
    """

    languages: int = 1
    signal: str = "none"
    lang_width: int = 0
    groups: tuple[int, ...] = ()
    common: int = 0
    own: int = 1
    redundant: bool = False
    alpha: float | None = None
    kind: str = field(default="language", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.signal == "none") != bool(self.groups):
            raise LayerError(
                "a language reaches the router by a signal or by groups of experts: give one of the two "
                f"(signal is {self.signal!r}, groups are {self.groups})"
            )
        if self.groups:
            self._check_groups()
        else:
            self._check_signal()
        if self.alpha is not None and not self.alpha >= 0:
            raise LayerError(f"alpha = {self.alpha} must not be negative")

    def _check_groups(self) -> None:
        if len(self.groups) != self.languages:
            raise LayerError(f"{len(self.groups)} groups are given for {self.languages} languages; give one for each")
        each = expert_groups(self.experts, self.groups, self.common).count(0)
        rest, further = self.experts - each if self.redundant else self.common, self.top_k - self.own
        if not 1 <= self.own <= min(each, self.top_k) or further > rest:
            raise LayerError(
                f"{self.own} own and {further} further slots cannot be filled from {each} experts of a group and "
                f"{rest} others"
            )
        if self.bias_rate:
            raise LayerError("allocated experts cannot be balanced by a correction: the languages decide their load")

    def _check_signal(self) -> None:
        if self.signal not in SIGNALS:
            raise LayerError(f"unknown language signal {self.signal!r}; use {', '.join(SIGNALS)}")
        if self.languages < 1:
            raise LayerError(f"{self.languages} languages cannot be embedded; choose at least 1")
        if self.lang_width < 0 or (self.signal == "added" and self.lang_width not in (0, self.hidden)):
            raise LayerError(
                f"a language embedding of width {self.lang_width} cannot be {self.signal} to tokens of width "
                f"{self.hidden}"
            )

    def router(self, d: int, rows_per_token: int = 1) -> TopKRouter:
        """The router, for rows of width `d`."""
        options: dict[str, Any] = {
            "scoring": self.scoring, "normalise": self.normalise, "z_weight": self.z_weight,
            "bias_rate": self.bias_rate, "rows_per_token": rows_per_token,
        }  # fmt: skip
        if self.groups:
            return AllocatedRouter(
                d, self.experts, self.top_k, self.groups, self.common, self.own, self.redundant, **options
            )
        return LanguageRouter(d, self.experts, self.top_k, self.languages, self.signal, self.lang_width, **options)

    def routed_experts(self) -> Experts:
        """The routed experts, with a shared base if there is an alpha."""
        if self.alpha is None:
            return super().routed_experts()
        return OffsetExperts(
            self.experts, self.hidden, self.width, self.alpha, activation=self.activation, precision=self.precision
        )

    def parts(self) -> dict[str, Count]:
        """Router with its language embedding, experts and shared experts."""
        found = super().parts()
        if self.signal != "none":
            width = self.lang_width or self.hidden
            gate = {"added": self.hidden, "concatenated": self.hidden + width, "task": width}[self.signal]
            found["router"] = matrix(gate, self.experts) + Count(self.languages * width)
        if self.alpha is not None:  # adding base and offset is not counted: a token is multiplied with the sum
            found["experts"] += count_feed_forward(self.hidden, self.width, self.activation, 1, 0)
        return found
