"""What a forward pass is about: its tokens, which of them are real, where they stand and whether it decodes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import CaptureError, InterventionError
from .interventions import Intervention

TokenMask = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Pass:
    """Geometry of one forward pass.

    Attributes:
        mask: `(batch, pos)` bool, True for real tokens.
        position: `(batch, pos)` index among a text's real tokens, those of earlier passes counted. A row is one text,
            unless its position ids begin again: then it is packed, and each of its texts is counted from 0.
        phase: `prefill`, or `decode` when tokens lie in a cache already.
        ids: `(batch, pos)` token ids; None when the model was given embeddings.
    """

    mask: Tensor
    position: Tensor
    phase: str
    ids: Tensor | None

    @property
    def tokens(self) -> int:
        """Rows that routers see, padding included."""
        return self.mask.numel()

    def scope(self, one: Intervention, masks: Mapping[str, TokenMask]) -> Tensor | bool:
        """Tokens an intervention acts on: True (all), or a `(token,)` mask.

        Raises:
            InterventionError: no mask of that name, or one of another shape.
        """
        positions, phase, where = one.positions, one.phase, one.where
        if positions is None and phase is None and where is None:
            return True
        acts = torch.ones_like(self.mask) if phase in (None, self.phase) else torch.zeros_like(self.mask)
        if positions is not None:
            acts &= self.position >= positions[0]
            acts &= self.position < positions[1] if positions[1] is not None else True
        if where is not None:
            acts &= self.named(where, masks)
        return acts.reshape(-1)

    def named(self, where: str, masks: Mapping[str, TokenMask]) -> Tensor:
        """`(batch, pos)` bool, the mask of a name.

        Raises:
            InterventionError: see `scope`.
        """
        if where not in masks:
            raise InterventionError(
                f"no token mask is called {where!r}; hand it over when attaching: masks={{{where!r}: ...}}"
            )
        found = masks[where]
        if not isinstance(found, Tensor):
            if self.ids is None:
                raise InterventionError(
                    f"token mask {where!r} is computed from token ids, and the model was given embeddings"
                )
            found = found(self.ids)
        if found.shape != self.mask.shape:
            raise InterventionError(
                f"token mask {where!r} has shape {tuple(found.shape)}, this pass has {tuple(self.mask.shape)}; "
                "for generation hand over a function of the token ids"
            )
        return found.to(self.mask.device, torch.bool)


def read_pass(given: Mapping[str, Any], wait: bool = True) -> Pass:
    """Geometry of a call of a causal language model, from its arguments by name.

    Args:
        wait: look at once whether there is a real token, which waits for the mask's device; else `refuse_empty` is due.

    Raises:
        CaptureError: no token ids or embeddings, a mask that is not two-dimensional or does not cover them, or a batch
            that is all padding.
    """
    ids, embeds = given.get("input_ids"), given.get("inputs_embeds")
    tokens = ids if ids is not None else embeds
    if tokens is None:
        raise CaptureError(
            "the model was called without input_ids or inputs_embeds; routing cannot be aligned to tokens"
        )
    batch, length = tokens.shape[:2]
    mask, past = _mask(given, batch, length, tokens.device)
    if wait:
        refuse_empty([mask[:, -length:].any()])
    position = (mask.long().cumsum(1) - 1)[:, -length:] + (past if mask.shape[1] == length else 0)
    if not past:
        position = position - _before(given.get("position_ids"), mask, position)
    phase = "decode" if past else "prefill"
    return Pass(mask[:, -length:], position, phase, None if ids is None else ids.detach())


def refuse_empty(real: Sequence[Tensor]) -> None:
    """Refuse a batch without a real token, told by one flag.

    Raises:
        CaptureError: it is all padding.
    """
    if not bool(real[0]):
        raise CaptureError("the batch is all padding: the attention mask has no real token")


def _mask(given: Mapping[str, Any], batch: int, length: int, device: torch.device) -> tuple[Tensor, int]:
    """The attention mask as bool over cached and new tokens, and how many are cached."""
    cached = _cached(given)
    mask = given.get("attention_mask")
    if mask is None:
        return torch.ones(batch, length, dtype=torch.bool, device=device), cached
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[0] != batch or mask.shape[1] < length:
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise CaptureError(
            f"the attention mask is {shape}; to know which of {(batch, length)} tokens are padding it has to be "
            "(batch, cached + new) with ones for real tokens. Generation with a static cache makes another one of it: "
            "leave `cache_implementation` out"
        )
    return mask.to(device) != 0, max(cached, mask.shape[1] - length)


def _cached(given: Mapping[str, Any]) -> int:
    """Tokens in the cache: its own count, else the first position, if it holds anything (MiniMax's cache always counts
    zero)."""
    cache, positions = given.get("past_key_values"), given.get("position_ids")
    if cache is None:
        return 0
    counted = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
    if counted or not isinstance(positions, Tensor) or not _holds(vars(cache)):
        return counted
    return int(positions[..., 0].max())


def _holds(value: Any) -> bool:
    """Whether there is a tensor with anything in it, in lists, mappings and objects of lists."""
    if isinstance(value, Tensor):
        return value.numel() > 0
    if isinstance(value, Mapping):
        return any(map(_holds, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds, value))
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, type)
        and type(value).__name__.endswith("Layer")
        and _holds(vars(value))
    )


def _before(positions: Any, mask: Tensor, index: Tensor) -> Tensor:
    """`(batch, pos)` real tokens of a row that stand before the text of each token: those of a packed row's earlier
    texts, 0 in a row of one text. A text begins where position ids come back to that of the row's first token."""
    if not isinstance(positions, Tensor) or positions.ndim != 2 or positions.shape[-1] != mask.shape[-1]:
        return torch.zeros_like(index)
    own = positions.to(index.device).expand_as(index)
    first = own.gather(1, mask.long().argmax(1, keepdim=True))
    starts = mask & (own == first) & (index > 0)
    same = (own == first).all(1, keepdim=True)  # position ids that say nothing
    return torch.where(starts & ~same, index, 0).cummax(1).values
