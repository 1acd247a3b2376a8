"""Streaming routing statistics: sums whose size does not depend on tokens, fed by the passes of a model."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .errors import CaptureError
from .fixed_point import BITS, check_exact, check_room, group_sums, slot_sums
from .passes import Pass
from .seam import Routing
from .sums import PHASES, RoutingSums, named_by_content, plain

# Logits held back at most before they are summed: 32 MB.
_HELD = 2**23


class RoutingStats(RoutingSums):
    """`RoutingSums` over the real tokens of a model's passes, each counted whole when it ended, or not at all.

    Args:
        groups, layers, classes, provenance, sequences, observed: see `RoutingSums`.
    """

    _staged: list[tuple[int, tuple[np.ndarray, ...], dict[str, np.ndarray]]]
    _rows: dict[int, Tensor]
    _held: list[tuple[int, Routing]]
    _at: Pass
    _groups: tuple[str, ...]

    def bind(
        self, layers: Sequence[int], classes: int, provenance: Mapping, observed: Sequence[str] = tuple(BITS)
    ) -> None:
        """Take the shape of a model; a second model has to have the same.

        Raises:
            CaptureError: other layers, experts, provenance or sums than what was counted so far; importance of
                sequences without probabilities.
        """
        if self.sequences and "probability" not in observed:
            raise CaptureError("a sequence's importance is made of router probabilities, and this routing has none")
        if not self.layers:
            self._allocate(tuple(layers), classes, observed)
            self.provenance = plain(provenance)
        kept = tuple(key for key in BITS if key in observed)
        if (tuple(layers), classes, kept, named_by_content(plain(provenance))) != self._identity:
            raise CaptureError("these statistics were begun with another model or setting; use a fresh RoutingStats")

    def observe(self, layer: int, routing: Routing, at: Pass, rows: Sequence[str]) -> None:
        """Hold one layer of a pass back; `rows` names the group of each batch row. Layers of one shape are summed
        together, a few at a time.

        Raises:
            CaptureError: see `stage`; a selected class out of range.
        """
        held = sum(r.logits.numel() for _, r in self._held)
        if self._held and (held > _HELD or self._held[0][1].logits.shape != routing.logits.shape):
            self._sum_held()
        self._held.append((layer, routing))
        self._at, self._groups = at, tuple(rows)

    def _sum_held(self) -> None:
        if not self._held:
            return
        layers = [layer for layer, _ in self._held]
        device = self._held[0][1].logits.device
        logits, index, weight = (
            torch.stack([getattr(r, name).to(device) for _, r in self._held]) for name in ("logits", "index", "weight")
        )
        width = logits.shape[-1]
        wrong = ((index < 0) | (index >= width)).flatten(1).any(1)
        if bool(wrong.any()):
            at = layers[int(wrong.int().argmax())]
            raise CaptureError(f"layer {at}: a selected expert is out of range 0..{width - 1}")
        surprisal = logits.log_softmax(-1)
        probability = surprisal.exp()
        parts = {
            "probability": probability,
            "probability_squared": probability.square(),
            "entropy": -torch.linalg.vecdot(probability, surprisal),
        }
        mask = self._at.mask
        if (heads := index.shape[1] // mask.numel()) > 1:
            mask = mask.repeat_interleave(heads, 1)
        self.stage(layers, index, weight, parts, mask, self._at.phase, self._groups)
        if self.sequences and self._at.phase == "prefill":
            means = self._sequence_means(probability, mask)
            self._rows |= {self.layers.index(layer): own for layer, own in zip(layers, means, strict=True)}
        self._held = []

    def stage(
        self,
        layers: Sequence[int],
        index: Tensor,
        weight: Tensor | None,
        parts: Mapping[str, Tensor],
        mask: Tensor,
        phase: str,
        rows: Sequence[str],
    ) -> None:
        """Hold some layers of a pass back until `commit`, as sums; tokens are flattened batch-major.

        Args:
            index: `(layer, token, slot)` distinct classes, or the number of classes for an empty slot.
            weight: the same shape, or None if it is not known.
            parts: further values by name, `(layer, token, class)`, or `(layer, token)` for the entropy.
            mask: `(batch, pos)` bool, the tokens to count.
            rows: group of each batch row.

        Raises:
            CaptureError: a sum is not a number or too large to be exact.
        """
        present = sorted(set(rows), key=self.groups.index)
        member = torch.tensor([[r == g for r in rows] for g in present], device=index.device)
        member = (member.unsqueeze(-1) & mask.to(index.device)).flatten(1)
        width = parts["probability"].shape[-1] if "probability" in parts else self.classes
        sums = {name: group_sums(member, values, BITS[name]) for name, values in parts.items()}
        sums |= slot_sums(member, index, weight, width)
        for name, values in sums.items():
            check_exact(values, layers, name)
        sums["tokens"] = np.broadcast_to(member.sum(1).cpu().numpy(), (len(layers), len(present)))
        where = np.ix_([self.groups.index(g) for g in present], [self.layers.index(layer) for layer in layers])
        self._staged.append((PHASES.index(phase), where, sums))

    def _sequence_means(self, probability: Tensor, mask: Tensor) -> list[Tensor]:
        """`(batch, class)` of each layer; NaN for a row that is all padding, and for classes that a layer lacks."""
        weights = mask.to(probability.device, torch.float32)
        grid = probability.unflatten(1, mask.shape)
        means = torch.einsum("lbpe,bp->lbe", grid, weights) / weights.sum(1)[:, None]
        return list(torch.nn.functional.pad(means, (0, self.classes - means.shape[-1]), value=torch.nan).cpu())

    def commit(self, rows: Sequence[str]) -> None:
        """Count what the pass staged, all of it or nothing; called when the pass ended without an error.

        Raises:
            CaptureError: the sums are full; see `observe`.
        """
        self._sum_held()
        totals = [
            (self._sums(key, phase, values.shape), where, values.swapaxes(0, 1).astype(np.int64))
            for phase, where, sums in self._staged
            for key, values in sums.items()
        ]
        for own, where, values in totals:
            check_room(own[where] + values)
        for own, where, values in totals:
            own[where] += values
        for _, (_, slots), sums in self._staged:
            self.widths[slots] = sums["selections"].shape[2]
        if self._rows:
            stacked = np.stack([self._rows[s].numpy() for s in sorted(self._rows)], 1)
            self.importance += list(zip(rows, stacked, strict=True))
        self.discard()

    def _sums(self, key: str, phase: int, shape: tuple[int, ...]) -> np.ndarray:
        """View `(group, layer, ...)` of the sums of a phase, as wide as the routers that gave `(layer, group, ...)`."""
        own = (self.tokens if key == "tokens" else self.sums[key])[phase]
        return own[..., : shape[2]] if len(shape) > 2 else own

    def discard(self) -> None:
        """Forget a pass that did not end."""
        self._staged, self._rows, self._held = [], {}, []
