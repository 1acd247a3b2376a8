"""Streaming routing statistics: sums per phase, group, layer and expert whose size does not depend on tokens.

All sums are integers (real values in fixed point), so merging is exactly associative and commutative: any split of the
data over passes, processes or machines gives the same bits.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from .errors import CaptureError
from .passes import Pass
from .seam import Routing

PHASES = ("prefill", "decode")
# Binary digits after the point. Values stay below 16 (entropy, weights) or 1 (probabilities), and a pass has fewer
# than 2 ** 21 tokens, so that a pass's sums are exact in float64 and 2 ** 31 tokens fit into int64.
BITS = {"probability": 32, "probability_squared": 32, "selections": 0, "weight": 28, "entropy": 28}


class RoutingStats:
    """Sums over real tokens.

    Per phase, group, layer and expert: `selections`, full-softmax `probability`, its square, gate `weight` of the
    selected; per phase, group and layer: `entropy` of the full softmax (nats) and tokens.

    Args:
        groups: names, one of which every sequence is counted under (languages, domains).
        layers: decoder layers that route; classes: width of the widest router.
        provenance: what the numbers come from.
        sequences: keep each sequence's mean router probabilities of its prefill (grows with sequences, not tokens).
    """

    def __init__(
        self,
        groups: Sequence[str] = ("all",),
        layers: Sequence[int] = (),
        classes: int = 0,
        provenance: dict | None = None,
        sequences: bool = False,
    ) -> None:
        if not groups or len(set(groups)) < len(groups):
            raise CaptureError(f"groups of statistics have to be distinct names, got {list(groups)}")
        self.groups, self.sequences = tuple(groups), sequences
        self.provenance = dict(provenance or {})
        self._staged: list[tuple[int, int, Tensor, np.ndarray]] = []
        self._rows: dict[int, list[Tensor]] = {}
        self.importance: list[tuple[str, np.ndarray]] = []
        self._allocate(tuple(layers), classes)

    def _allocate(self, layers: tuple[int, ...], classes: int) -> None:
        self.layers, self.classes = layers, classes
        shape = (len(PHASES), len(self.groups), len(layers))
        self.tokens = np.zeros(shape, dtype=np.int64)
        self.sums = {
            key: np.zeros(shape if key == "entropy" else (*shape, classes), dtype=np.int64) for key in BITS
        }  # fmt: skip

    def bind(self, layers: Sequence[int], classes: int, provenance: dict) -> None:
        """Take the shape of a model; a second model has to have the same.

        Raises:
            CaptureError: other layers, experts or provenance than what was counted so far.
        """
        if not self.layers:
            self._allocate(tuple(layers), classes)
            self.provenance = dict(provenance)
        if (tuple(layers), classes) != (self.layers, self.classes) or provenance != self.provenance:
            raise CaptureError("these statistics were begun with another model or setting; use a fresh RoutingStats")

    def observe(self, layer: int, routing: Routing, at: Pass, rows: Sequence[str]) -> None:
        """Stage one layer of a pass; `rows` names the group of each batch row."""
        probability = routing.logits.softmax(-1)
        entropy = torch.special.entr(probability).sum(-1, keepdim=True)
        classes = probability.shape[-1]
        hot = F.one_hot(routing.index.clamp(0, classes - 1), classes).to(torch.float64)
        gates = torch.einsum("tse,ts->te", hot, routing.weight.double())
        parts = {
            "probability": probability, "probability_squared": probability.square(), "selections": hot.sum(1),
            "weight": gates, "entropy": entropy,
        }  # fmt: skip
        table = torch.cat([(v.double() * 2.0 ** BITS[k]).round() for k, v in parts.items()], -1)
        present = sorted(set(rows), key=self.groups.index)
        member = torch.tensor([[r == g for r in rows] for g in present], device=table.device)
        member = (member.unsqueeze(-1) & at.mask.to(table.device)).flatten(1).double()
        groups = torch.tensor([self.groups.index(g) for g in present])
        slot = self.layers.index(layer)
        self._staged.append((PHASES.index(at.phase), slot, groups, (member @ table).cpu().numpy()))
        if slot == 0:
            self._count(at, groups, member)
        if self.sequences and at.phase == "prefill":
            self._rows[slot] = self._sequence_means(probability, at)

    def _count(self, at: Pass, groups: Tensor, member: Tensor) -> None:
        self._staged.append((PHASES.index(at.phase), -1, groups, member.sum(1).cpu().numpy()))

    def _sequence_means(self, probability: Tensor, at: Pass) -> list[Tensor]:
        weights = at.mask.to(probability.device, torch.float32)
        grid = probability.view(*at.mask.shape, -1)
        means = torch.einsum("bpe,bp->be", grid, weights) / weights.sum(1, keepdim=True).clamp_min(1)
        return list(F.pad(means, (0, self.classes - means.shape[1])).cpu())

    def commit(self, rows: Sequence[str]) -> None:
        """Count what the pass staged; called when the pass ended without an error."""
        for phase, slot, groups, table in self._staged:
            whole = table.astype(np.int64)
            if slot < 0:
                self.tokens[phase, groups.numpy()] += whole[:, None]
            else:
                self._add(phase, slot, groups.numpy(), whole)
        if self._rows:
            stacked = np.stack([np.stack([t.numpy() for t in self._rows[s]]) for s in sorted(self._rows)], 1)
            self.importance += list(zip(rows, stacked, strict=True))
        self.discard()

    def _add(self, phase: int, slot: int, groups: np.ndarray, table: np.ndarray) -> None:
        classes = (table.shape[1] - 1) // 4
        for i, key in enumerate(BITS):
            if key == "entropy":
                self.sums[key][phase, groups, slot] += table[:, -1]
            else:
                self.sums[key][phase, groups, slot, :classes] += table[:, i * classes : (i + 1) * classes]

    def discard(self) -> None:
        """Forget a pass that did not end."""
        self._staged, self._rows = [], {}

    def merge(self, other: "RoutingStats") -> "RoutingStats":
        """Sum of two statistics over the union of their groups.

        Raises:
            CaptureError: they describe different models.
        """
        if (self.layers, self.classes, self.provenance) != (other.layers, other.classes, other.provenance):
            raise CaptureError("statistics of different models or settings cannot be merged")
        groups = (*self.groups, *(g for g in other.groups if g not in self.groups))
        total = RoutingStats(groups, self.layers, self.classes, self.provenance, self.sequences or other.sequences)
        for part in (self, other):
            at = [groups.index(g) for g in part.groups]
            total.tokens[:, at] += part.tokens
            for key, values in part.sums.items():
                total.sums[key][:, at] += values
            total.importance += part.importance
        return total

    def dataset(self) -> xr.Dataset:
        """Means per token: `(phase, group, layer, expert)`; NaN where no token was seen, never 0.

        `activation_rate` share of tokens that selected the expert; `probability` and `probability_std` of the full
        softmax; `weight` mean gate weight over the tokens that selected it; `entropy` in nats; `tokens`.
        """
        tokens = np.where(self.tokens > 0, self.tokens, np.nan)
        real = {key: values / 2.0 ** BITS[key] for key, values in self.sums.items()}
        per_token = tokens[..., None]
        chosen = np.where(real["selections"] > 0, real["selections"], np.nan)
        mean = real["probability"] / per_token
        spread = np.sqrt(np.maximum(real["probability_squared"] / per_token - mean**2, 0))
        axes = ("phase", "group", "layer", "expert")
        return xr.Dataset(
            {
                "tokens": (axes[:3], self.tokens),
                "entropy": (axes[:3], real["entropy"] / tokens),
                "activation_rate": (axes, real["selections"] / per_token),
                "probability": (axes, mean),
                "probability_std": (axes, spread),
                "weight": (axes, real["weight"] / chosen),
            },
            coords={
                "phase": list(PHASES), "group": list(self.groups), "layer": list(self.layers),
                "expert": np.arange(self.classes),
            },
            attrs={"provenance": json.dumps(self.provenance, sort_keys=True)},
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the sums as netCDF; `load` gives back the same bits."""
        names = [name for name, _ in self.importance]
        rows = np.stack([row for _, row in self.importance]) if names else np.zeros((0, len(self.layers), self.classes))
        axes = ("phase", "group", "layer", "expert")
        data = {key: (axes[: v.ndim], v) for key, v in self.sums.items()} | {"tokens": (axes[:3], self.tokens)}
        data["importance"] = (("sequence", "layer", "expert"), rows.astype(np.float32))
        header = {
            "groups": self.groups, "layers": self.layers, "classes": self.classes, "provenance": self.provenance,
            "sequences": self.sequences, "sequence_groups": names,
        }  # fmt: skip
        temporary = Path(path).with_suffix(".tmp")
        xr.Dataset(data, attrs={"header": json.dumps(header, sort_keys=True)}).to_netcdf(temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "RoutingStats":
        """Statistics written by `save`.

        Raises:
            CaptureError: the file holds something else.
        """
        with xr.open_dataset(path) as file:
            data = file.load()
        if "header" not in data.attrs:
            raise CaptureError(f"{path} does not hold routing statistics")
        header = json.loads(data.attrs["header"])
        stats = cls(header["groups"], header["layers"], header["classes"], header["provenance"], header["sequences"])
        stats.tokens = data["tokens"].values
        stats.sums = {key: data[key].values for key in BITS}
        stats.importance = list(zip(header["sequence_groups"], data["importance"].values, strict=True))
        return stats
