"""Streaming routing statistics: sums whose size does not depend on tokens, fed by the passes of a model."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .errors import CaptureError
from .fixed_point import BITS, check_exact, check_room, group_sums, slot_sums
from .host import to_device, to_host
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

    _staged: list[tuple[int, tuple[int, ...], np.ndarray, dict[str, Tensor]]]
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
        surprisal = logits.log_softmax(-1)
        probability = surprisal.exp()
        parts = {
            "probability": probability,
            "probability_squared": probability.square(),
            "entropy": -torch.linalg.vecdot(probability, surprisal),
        }
        wrong = ((index < 0) | (index >= width)).flatten(1).any(1)
        mask = self._at.mask
        if (heads := index.shape[1] // mask.numel()) > 1:
            mask = mask.repeat_interleave(heads, 1)
        self.stage(layers, index, weight, parts, mask, self._at.phase, self._groups)
        self._staged[-1][3]["wrong"] = wrong
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

        """
        present = sorted(set(rows), key=self.groups.index)
        member = to_device([[r == g for r in rows] for g in present], index.device)
        member = (member.unsqueeze(-1) & mask.to(index.device)).flatten(1)
        width = parts["probability"].shape[-1] if "probability" in parts else self.classes
        sums = {name: group_sums(member, values, BITS[name]) for name, values in parts.items()}
        sums |= slot_sums(member, index, weight, width)
        sums["tokens"] = member.sum(1).expand(len(layers), -1)
        groups = np.array([self.groups.index(g) for g in present])
        self._staged.append((PHASES.index(phase), tuple(map(self.layers.index, layers)), groups, sums))

    def _sequence_means(self, probability: Tensor, mask: Tensor) -> list[Tensor]:
        """`(batch, class)` of each layer; NaN for a row that is all padding, and for classes that a layer lacks."""
        weights = mask.to(probability.device, torch.float32)
        grid = probability.unflatten(1, mask.shape)
        means = torch.einsum("lbpe,bp->lbe", grid, weights) / weights.sum(1)[:, None]
        return list(torch.nn.functional.pad(means, (0, self.classes - means.shape[-1]), value=torch.nan))

    def pending(self) -> list[Tensor]:
        """What the pass staged, on the model's device; `commit` takes copies of it on the CPU."""
        self._sum_held()
        return [t for *_, sums in self._staged for t in sums.values()] + [self._rows[s] for s in sorted(self._rows)]

    def commit(self, rows: Sequence[str], pending: Sequence[Tensor] | None = None) -> None:
        """Count what the pass staged, all of it or nothing; called when the pass ended without an error.

        Args:
            pending: copies on the CPU of what `pending` gave; made here if left out.

        Raises:
            CaptureError: a selected class out of range, a sum that is not a number or too large to be exact; the sums
                are full.
        """
        found = iter([t.numpy() for t in (to_host(self.pending()) if pending is None else pending)])
        totals = []
        for phase, slots, groups, sums in self._staged:
            named = {name: next(found) for name in sums}
            self._refuse(slots, named)
            where = np.ix_(groups, np.array(slots))
            for key, values in named.items():
                own = values.swapaxes(0, 1).astype(np.int64)
                totals.append((self._sums(key, phase, own.shape), where, own))
        for sums_of, where, values in totals:
            check_room(sums_of[where] + values)
        for sums_of, where, values in totals:
            sums_of[where] += values
        for _, slots, _, sums in self._staged:
            self.widths[list(slots)] = sums["selections"].shape[-1]
        if self._rows:
            self.importance += list(zip(rows, np.stack(list(found), 1), strict=True))
        self.discard()

    def _refuse(self, slots: Sequence[int], sums: dict[str, np.ndarray]) -> None:
        """Refuse sums of layers that cannot be counted."""
        wrong = sums.pop("wrong", np.zeros(len(slots), dtype=bool))
        width = sums["selections"].shape[-1]
        if wrong.any():
            layer = self.layers[slots[int(wrong.argmax())]]
            raise CaptureError(f"layer {layer}: a selected expert is out of range 0..{width - 1}")
        for name, values in sums.items():
            check_exact(values, [self.layers[slot] for slot in slots], name)

    def _sums(self, key: str, phase: int, shape: tuple[int, ...]) -> np.ndarray:
        """View `(group, layer, ...)` of the sums of a phase, as wide as the routers that gave `(group, layer, ...)`."""
        own = (self.tokens if key == "tokens" else self.sums[key])[phase]
        return own[..., : shape[2]] if len(shape) > 2 else own

    def discard(self) -> None:
        """Forget a pass that did not end."""
        self._staged, self._rows, self._held = [], {}, []
