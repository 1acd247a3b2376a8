"""What a forward pass is about: its tokens, which of them are real, where they stand and whether it decodes."""

from collections.abc import Callable, Mapping
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
        position: `(batch, pos)` index among a sequence's real tokens, those of earlier passes counted.
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
            acts &= self._named(where, masks)
        return acts.reshape(-1)

    def _named(self, where: str, masks: Mapping[str, TokenMask]) -> Tensor:
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


def read_pass(given: Mapping[str, Any]) -> Pass:
    """Geometry of a call of a causal language model, from its arguments by name.

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
    if not bool(mask[:, -length:].any()):
        raise CaptureError("the batch is all padding: the attention mask has no real token")
    position = (mask.long().cumsum(1) - 1)[:, -length:] + (past if mask.shape[1] == length else 0)
    phase = "decode" if past else "prefill"
    return Pass(mask[:, -length:], position, phase, None if ids is None else ids.detach())


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
            "(batch, cached + new) with ones for real tokens"
        )
    return mask.to(device) != 0, max(cached, mask.shape[1] - length)


def _cached(given: Mapping[str, Any]) -> int:
    """Tokens in the cache: its own count, else the first position (MiniMax's cache always counts zero)."""
    cache, positions = given.get("past_key_values"), given.get("position_ids")
    if cache is None:
        return 0
    counted = int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
    return counted or (int(positions[..., 0].max()) if isinstance(positions, Tensor) else 0)
