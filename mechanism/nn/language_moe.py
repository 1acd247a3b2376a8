"""The sparse layer for many languages: what its router knows of them, and what its experts share."""

from dataclasses import dataclass, field
from typing import Any

from .accounting import Count, matrix
from .allocation import AllocatedRouter, check_allocation
from .errors import LayerError
from .experts import Experts
from .language import LanguageRouter, check_signal
from .moe import SparseMoEConfig
from .offset import OffsetExperts, count_offset_experts
from .router import TopKRouter


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
            check_signal(self.hidden, self.languages, self.signal, self.lang_width)
        if self.alpha is not None and not self.alpha >= 0:
            raise LayerError(f"alpha = {self.alpha} must not be negative")

    def _check_groups(self) -> None:
        if len(self.groups) != self.languages:
            raise LayerError(f"{len(self.groups)} groups are given for {self.languages} languages; give one for each")
        check_allocation(self.experts, self.top_k, self.groups, self.common, self.own, self.redundant, self.bias_rate)

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
        if self.alpha is not None:
            found["experts"] = count_offset_experts(self.hidden, self.width, self.activation, self.experts, self.top_k)
        return found
