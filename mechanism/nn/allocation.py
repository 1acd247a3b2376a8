"""Experts allocated to languages or families, selected by the language id, with a redundant second set on request."""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .errors import LayerError
from .language import Listener
from .router import TopKRouter

COMMON = -1


def groups_of(labels: Sequence[Hashable]) -> tuple[int, ...]:
    """Group numbers from the labels of the languages (families, clusters), in order of first appearance."""
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    return tuple(numbers[label] for label in labels)


def expert_groups(experts: int, groups: Sequence[int], common: int) -> tuple[int, ...]:
    """The group of each expert: first the common ones (`COMMON`), then equally many for each group.

    Raises:
        LayerError: groups are not numbered 0, 1, ... without gap, or the experts cannot be shared out evenly.
    """
    count = max(groups, default=-1) + 1
    if not count or set(groups) != set(range(count)):
        raise LayerError(f"groups {tuple(groups)} are not numbered from 0 without a gap")
    each, left = divmod(experts - common, count)
    if common < 0 or each < 1 or left:
        good = common + count * max(each, 1)
        raise LayerError(
            f"{experts} experts cannot be shared out evenly: beside {common} common ones, {count} groups need a "
            f"multiple of {count}, so {good} or {good + count} in all"
        )
    return (COMMON,) * common + tuple(g for g in range(count) for _ in range(each))


def check_allocation(
    experts: int, top_k: int, groups: Sequence[int], common: int, own: int, redundant: bool, bias_rate: float = 0.0
) -> None:
    """Refuse an allocation that leaves slots empty, or that a correction would upset; see `AllocatedRouter`.

    Raises:
        LayerError: the sentence names the values.
    """
    each = expert_groups(experts, groups, common).count(0)
    rest = experts - each if redundant else common
    if not 1 <= own <= min(each, top_k) or top_k - own > rest:
        raise LayerError(
            f"{own} own and {top_k - own} further slots cannot be filled from {each} experts of a group and {rest} "
            "others"
        )
    if bias_rate:
        raise LayerError("allocated experts cannot be balanced by a correction: the languages decide their load")


class AllocatedRouter(TopKRouter, Listener):
    """Selects `own` experts of the language's group, and fills the other slots from the common experts.

    With `redundant` the other slots are a backup: the best experts outside the group, common or of any other group, by
    the token alone. If the language id is wrong, those can be the right ones. For `UNKNOWN` every expert competes
    for every slot. Scores and weights are those of `TopKRouter`.

    Args:
        groups: group of each language; experts 0 to `common - 1` are common, the others are shared out in order.
    """

    def __init__(
        self, d: int, num_experts: int, top_k: int, groups: Sequence[int], common: int = 0, own: int = 1,
        redundant: bool = False, **options,
    ) -> None:  # fmt: skip
        check_allocation(num_experts, top_k, groups, common, own, redundant, options.get("bias_rate", 0.0))
        super().__init__(d, num_experts, top_k, **options)
        self.languages, self.own, self.redundant = len(groups), own, redundant
        # No buffers: transformers builds models on the meta device, where their content would be lost.
        self.groups, self.owners = tuple(groups), expert_groups(num_experts, groups, common)
        self._row_group: Tensor | None = None

    def gate_input(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "row gate"]:
        """The rows; their groups are kept for the selection."""
        self._row_group = self.group_of(self.rows_of(hidden))
        return super().gate_input(hidden)

    def group_of(self, lang: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """The group of each language; below `COMMON` for `UNKNOWN`."""
        return torch.tensor([*self.groups, COMMON - 1], device=lang.device)[lang]

    def select(self, scores: Float[Tensor, "row expert"]) -> tuple[Float[Tensor, "row slot"], Int[Tensor, "row slot"]]:
        """Own experts first, then the open ones by score."""
        index = torch.topk(self.rank(scores), self.top_k, dim=-1).indices
        return scores.gather(-1, index), index

    def rank(self, scores: Float[Tensor, "row expert"]) -> Float[Tensor, "row expert"]:
        """What the slots are filled by: scores, which lie in [0, 1], raised by 2 for the selected own experts and
        lowered by 2 for closed ones."""
        assert self._row_group is not None
        own, common = self.members(self._row_group), self._owners(scores.device) == COMMON
        # Not by top-k: the router's one top-k is the one that selects, which `mechanism.trace` edits.
        first = scores.masked_fill(~own, -1.0).argsort(-1, descending=True)[:, : self.own]
        chosen = torch.zeros_like(own).scatter(-1, first, True) & own
        unknown = (self._row_group < COMMON)[:, None]
        open_ = unknown | (~own if self.redundant else common[None])
        return scores + 2 * chosen.to(scores.dtype) - 2 * (~open_ & ~chosen).to(scores.dtype)

    def members(self, group: Int[Tensor, " row"]) -> Bool[Tensor, "row expert"]:
        """Which experts belong to each row's group."""
        return self._owners(group.device)[None] == group[:, None]

    def _owners(self, device: torch.device) -> Int[Tensor, " expert"]:
        return torch.tensor(self.owners, device=device)


def allocated_routers(model: nn.Module) -> list[AllocatedRouter]:
    """The routers of a model that follow an allocation, by layer."""
    return [module for module in model.modules() if isinstance(module, AllocatedRouter)]
