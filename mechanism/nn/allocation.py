"""Experts allocated to languages or families, selected by the language id, with a redundant second set on request."""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, Int
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


class AllocatedRouter(TopKRouter, Listener):
    """Selects `own` experts of the language's group, and fills the other slots from the common experts.

    With `redundant` the other slots are a backup: the best experts outside the group, common or of any other group, by
    the token alone. If the language id is wrong, those can be the right ones. For `UNKNOWN` every expert competes
    for every slot. Scores and weights are those of `TopKRouter`.

    Args:
        groups: group of each language; experts 0 to `common - 1` are common, the others are shared out in order.
            `LanguageMoEConfig` checks that the slots can be filled.
    """

    def __init__(
        self, d: int, num_experts: int, top_k: int, groups: Sequence[int], common: int = 0, own: int = 1,
        redundant: bool = False, **options,
    ) -> None:  # fmt: skip
        super().__init__(d, num_experts, top_k, **options)
        self.languages, self.own, self.redundant = len(groups), own, redundant
        # No buffers: transformers builds models on the meta device, where their content would be lost.
        self.groups, self.owners = tuple(groups), expert_groups(num_experts, groups, common)
        self._row_group: Tensor | None = None

    def gate_input(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "row gate"]:
        """The rows; their groups are kept for the selection."""
        lang = self.rows_of(hidden)
        self._row_group = torch.tensor([*self.groups, COMMON - 1], device=lang.device)[lang]  # the last is of `UNKNOWN`
        return super().gate_input(hidden)

    def select(self, scores: Float[Tensor, "row expert"]) -> tuple[Float[Tensor, "row slot"], Int[Tensor, "row slot"]]:
        """Own experts first, then the open ones by score: scores, which lie in [0, 1], are raised by 2 for the selected
        own experts and lowered by 2 for closed ones."""
        assert self._row_group is not None
        owners, group = torch.tensor(self.owners, device=scores.device)[None], self._row_group[:, None]
        own = owners == group
        # Not by top-k: the router's one top-k is the one that selects, which `mechanism.trace` edits.
        first = scores.masked_fill(~own, -1.0).argsort(-1, descending=True)[:, : self.own]
        chosen = torch.zeros_like(own).scatter(-1, first, True) & own
        open_ = (group < COMMON) | (~own if self.redundant else owners == COMMON)
        rank = scores + 2 * chosen.to(scores.dtype) - 2 * (~open_ & ~chosen).to(scores.dtype)
        index = torch.topk(rank, self.top_k, dim=-1).indices
        return scores.gather(-1, index), index


def allocated_routers(model: nn.Module) -> list[AllocatedRouter]:
    """The routers of a model that follow an allocation, by layer."""
    return [module for module in model.modules() if isinstance(module, AllocatedRouter)]
