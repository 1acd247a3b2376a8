"""Sums of routing per phase, group, layer and expert: merged, read as means per token, written to a file and back.

All sums are integers (real values in fixed point), so merging is exactly associative and commutative: any split of the
data over passes, processes or machines gives the same bits.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import xarray as xr

from .errors import CaptureError
from .fixed_point import BITS, check_room

PHASES = ("prefill", "decode")
AXES = ("phase", "group", "layer", "expert")
SETTINGS = ("groups", "layers", "classes", "provenance", "sequences", "observed")

# Self, which beartype does not know on single methods.
S = TypeVar("S", bound="RoutingSums")


class RoutingSums:
    """Sums over tokens of what routers did; where a router has several rows a token (heads), each counts as a token.

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

    Raises:
        CaptureError: groups that are not distinct names.
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
        self.provenance = plain(provenance or {})
        self.importance: list[tuple[str, np.ndarray]] = []
        self._allocate(tuple(layers), classes, observed)
        self.discard()

    def discard(self) -> None:
        """Forget what is not counted yet: nothing here."""

    def require(self, names: Iterable[str]) -> None:
        """Refuse groups that are not counted.

        Raises:
            CaptureError: naming those that are not known, and those that are.
        """
        if unknown := sorted(set(names) - set(self.groups)):
            raise CaptureError(f"the statistics have no group {', '.join(unknown)}; they have {', '.join(self.groups)}")

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the sums that are known."""
        return tuple(self.sums)

    @property
    def _identity(self) -> tuple:
        return self.layers, self.classes, self.observed, named_by_content(self.provenance)

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

    def merge(self: S, other: S) -> S:
        """Sum of two statistics over the union of their groups.

        Raises:
            CaptureError: they describe different models or settings, or the sums are full.
        """
        if self._identity != other._identity:
            raise CaptureError("statistics of different models or settings cannot be merged")
        groups = (*self.groups, *(g for g in other.groups if g not in self.groups))
        sequences = self.sequences or other.sequences
        total = type(self)(groups, self.layers, self.classes, self.provenance, sequences, self.observed)
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
        header = {name: getattr(self, name) for name in SETTINGS} | {"sequence_groups": names}
        temporary = Path(path).with_name(Path(path).name + ".tmp")
        xr.Dataset(data, attrs={"header": json.dumps(header, sort_keys=True)}).to_netcdf(temporary)
        temporary.replace(path)

    @classmethod
    def load(cls: type[S], path: Path) -> S:
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
        stats = cls(**{name: header[name] for name in SETTINGS})
        stats.tokens, stats.widths = data["tokens"].values, data["widths"].values
        stats.sums = {key: data[key].values for key in stats.observed}
        stats.importance = list(zip(header["sequence_groups"], data["importance"].values, strict=True))
        return stats


def named_by_content(provenance: Mapping) -> dict:
    """Provenance without the names of a model whose weights it knows: two places may hold the same model, and one
    place two."""
    names = {"model", "revision"} if "weights" in provenance else set()
    return {key: value for key, value in provenance.items() if key not in names}


def plain(provenance: Mapping) -> dict:
    """As JSON gives it back, so that saved and fresh statistics compare equal."""
    return json.loads(json.dumps(dict(provenance)))
