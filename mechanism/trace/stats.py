"""Streaming routing statistics: sums per phase, group, layer and expert whose size does not depend on tokens.

All sums are integers (real values in fixed point), so merging is exactly associative and commutative: any split of the
data over passes, processes or machines gives the same bits.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from .errors import CaptureError
from .fixed_point import BITS, check_exact, check_room, group_sums, slot_sums
from .passes import Pass
from .seam import Routing

PHASES = ("prefill", "decode")
AXES = ("phase", "group", "layer", "expert")
# Logits held back at most before they are summed: 32 MB.
_HELD = 2**23


class RoutingStats:
    """Sums over real tokens. Where a router has several rows a token (heads), each row counts as a token.

    Per phase, group, layer and expert: `selections`, full-softmax `probability`, its square, gate `weight` of the
    selected; per phase, group and layer: `entropy` of the full softmax (nats) and tokens.

    Attributes:
        sums: int64 arrays of what was observed; routing that came without probabilities has no sums of them.
        tokens: `(phase, group, layer)` int64.
        widths: `(layer,)` classes of each layer, 0 before the first pass.
        importance: group and `(layer, class)` mean router probabilities of each sequence, in the order of the passes.

    Args:
        groups: names, one of which every sequence is counted under (languages, domains).
        layers: decoder layers that route; classes: width of the widest router.
        provenance: what the numbers come from.
        sequences: keep each sequence's mean router probabilities of its prefill (grows with sequences, not tokens).
        observed: names of the sums that can be known.
    """

    def __init__(
        self,
        groups: Sequence[str] = ("all",),
        layers: Sequence[int] = (),
        classes: int = 0,
        provenance: Mapping | None = None,
        sequences: bool = False,
        observed: Sequence[str] = tuple(BITS),
    ) -> None:
        if not groups or isinstance(groups, str) or len(set(groups)) < len(groups):
            raise CaptureError(f"groups of statistics have to be distinct names, got {groups!r}")
        self.groups, self.sequences = tuple(groups), sequences
        self.provenance = _plain(provenance or {})
        self._staged: list[tuple[int, int, np.ndarray, dict[str, np.ndarray]]] = []
        self._rows: dict[int, Tensor] = {}
        self._held: list[tuple[int, Routing]] = []
        self._at: Pass | None = None
        self._groups: tuple[str, ...] = ()
        self.importance: list[tuple[str, np.ndarray]] = []
        self._allocate(tuple(layers), classes, observed)

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the sums that are known."""
        return tuple(self.sums)

    def _allocate(self, layers: tuple[int, ...], classes: int, observed: Sequence[str]) -> None:
        self.layers, self.classes = layers, classes
        shape = (len(PHASES), len(self.groups), len(layers))
        self.tokens = np.zeros(shape, dtype=np.int64)
        self.widths = np.zeros(len(layers), dtype=np.int64)
        self.sums = {
            key: np.zeros(shape if key == "entropy" else (*shape, classes), dtype=np.int64)
            for key in BITS
            if key in observed
        }

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
            self.provenance = _plain(provenance)
        kept = tuple(key for key in BITS if key in observed)
        if (tuple(layers), classes, kept, _plain(provenance)) != self._identity:
            raise CaptureError("these statistics were begun with another model or setting; use a fresh RoutingStats")

    @property
    def _identity(self) -> tuple:
        return self.layers, self.classes, self.observed, self.provenance

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
        if not self._held or self._at is None:
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
        groups, tokens = np.array([self.groups.index(g) for g in present]), member.sum(1).cpu().numpy()
        for i, layer in enumerate(layers):
            own = {name: values[i] for name, values in sums.items()}
            for name, values in own.items():
                check_exact(values, layer, name)
            own["tokens"] = tokens
            self._staged.append((PHASES.index(phase), self.layers.index(layer), groups, own))

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
            (self._rows_of(key, phase, slot, values.shape), groups, values.astype(np.int64))
            for phase, slot, groups, sums in self._staged
            for key, values in sums.items()
        ]
        for where, groups, values in totals:
            check_room(where[groups] + values)
        for where, groups, values in totals:
            where[groups] += values
        for _, slot, _, sums in self._staged:
            self.widths[slot] = sums["selections"].shape[1]
        if self._rows:
            stacked = np.stack([self._rows[s].numpy() for s in sorted(self._rows)], 1)
            self.importance += list(zip(rows, stacked, strict=True))
        self.discard()

    def _rows_of(self, key: str, phase: int, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """View `(group, ...)` of the sums of a layer, as wide as its router."""
        where = (self.tokens if key == "tokens" else self.sums[key])[phase, :, slot]
        return where[:, : shape[1]] if len(shape) > 1 else where

    def discard(self) -> None:
        """Forget a pass that did not end."""
        self._staged, self._rows, self._held = [], {}, []

    def merge(self, other: "RoutingStats") -> "RoutingStats":
        """Sum of two statistics over the union of their groups.

        Raises:
            CaptureError: they describe different models or settings, or the sums are full.
        """
        if self._identity != other._identity:
            raise CaptureError("statistics of different models or settings cannot be merged")
        groups = (*self.groups, *(g for g in other.groups if g not in self.groups))
        sequences = self.sequences or other.sequences
        total = RoutingStats(groups, self.layers, self.classes, self.provenance, sequences, self.observed)
        for part in (self, other):
            at = [groups.index(g) for g in part.groups]
            total.tokens[:, at] += part.tokens
            total.widths = np.maximum(total.widths, part.widths)
            for key, values in part.sums.items():
                total.sums[key][:, at] += values
                check_room(total.sums[key])
            total.importance += part.importance
        return total

    def dataset(self) -> xr.Dataset:
        """Means per token: `(phase, group, layer, expert)`; NaN where no token was seen, for experts that a layer does
        not have, and for what was not observed, never 0.

        `activation_rate` share of tokens that selected the expert; `probability` and `probability_std` of the full
        softmax; `weight` mean gate weight over the tokens that selected it; `entropy` in nats; `tokens`.
        """
        tokens = np.where(self.tokens > 0, self.tokens, np.nan)
        per_token = tokens[..., None]
        selections = self._real("selections")
        mean = self._real("probability") / per_token
        spread = np.sqrt(np.maximum(self._real("probability_squared") / per_token - mean**2, 0))
        return xr.Dataset(
            {
                "tokens": (AXES[:3], self.tokens),
                "entropy": (AXES[:3], self._real("entropy") / tokens),
                "activation_rate": (AXES, selections / per_token),
                "probability": (AXES, mean),
                "probability_std": (AXES, spread),
                "weight": (AXES, self._real("weight") / np.where(selections > 0, selections, np.nan)),
            },
            coords={
                "phase": list(PHASES), "group": list(self.groups), "layer": list(self.layers),
                "expert": np.arange(self.classes),
            },
            attrs={"provenance": json.dumps(self.provenance, sort_keys=True)},
        )  # fmt: skip

    def _real(self, key: str) -> np.ndarray:
        """A sum as float64; NaN if it was not observed, or where a layer has no such expert."""
        shape = self.tokens.shape if key == "entropy" else (*self.tokens.shape, self.classes)
        if key not in self.sums:
            return np.full(shape, np.nan)
        real = self.sums[key] / 2.0 ** BITS[key]
        return real if key == "entropy" else np.where(np.arange(self.classes) < self.widths[:, None], real, np.nan)

    def save(self, path: Path) -> None:
        """Write the sums as netCDF; `load` gives back the same bits."""
        names = [name for name, _ in self.importance]
        rows = np.stack([row for _, row in self.importance]) if names else np.zeros((0, len(self.layers), self.classes))
        data = {key: (AXES[: v.ndim], v) for key, v in self.sums.items()}
        data |= {"tokens": (AXES[:3], self.tokens), "widths": (("layer",), self.widths)}
        data["importance"] = (("sequence", "layer", "expert"), rows.astype(np.float32))
        header = {
            "groups": self.groups, "layers": self.layers, "classes": self.classes, "provenance": self.provenance,
            "sequences": self.sequences, "sequence_groups": names, "observed": self.observed,
        }  # fmt: skip
        temporary = Path(path).with_name(Path(path).name + ".tmp")
        xr.Dataset(data, attrs={"header": json.dumps(header, sort_keys=True)}).to_netcdf(temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "RoutingStats":
        """Statistics written by `save`.

        Raises:
            CaptureError: the file holds something else.
            FileNotFoundError: there is no such file.
        """
        try:
            with xr.open_dataset(path, engine="netcdf4") as file:
                data = file.load()
            header = json.loads(data.attrs["header"])
        except FileNotFoundError:
            raise
        except (OSError, KeyError, ValueError) as error:
            raise CaptureError(f"{path} does not hold routing statistics") from error
        names = ("groups", "layers", "classes", "provenance", "sequences", "observed")
        stats = cls(**{name: header[name] for name in names})
        stats.tokens, stats.widths = data["tokens"].values, data["widths"].values
        stats.sums = {key: data[key].values for key in stats.observed}
        stats.importance = list(zip(header["sequence_groups"], data["importance"].values, strict=True))
        return stats


def _plain(provenance: Mapping) -> dict:
    """As JSON gives it back, so that saved and fresh statistics compare equal."""
    return json.loads(json.dumps(dict(provenance)))
