"""A recorded route: the experts that every token was given to in every layer, by sequence and position."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import CaptureError, InterventionError
from .interventions import _index
from .passes import Pass
from .records import Record


@dataclass(frozen=True, eq=False)
class Route:
    """Experts by layer, sequence, position and slot. Positions are counted over a sequence's real tokens; padding has
    none. A position without an entry holds -1 in all its slots, and routes by itself when the route is replayed.

    Attributes:
        index: decoder layer -> `(sequence, pos, slot)` integers; `(sequence, pos, head, slot)` where a router has
            several rows a token.
        weight: decoder layer -> floats of the same shape, as experts receive them; None if they are not known.
        ids: `(sequence, pos)` token ids that the route was recorded on, -1 where there is none; None if not known.
        classes: decoder layer -> number of experts that the router chose from; may be left out.

    Raises:
        InterventionError: arrays of other shapes or kinds, a token with some slots filled or an expert twice, or
            weights that are not finite.
    """

    index: Mapping[int, Any]
    weight: Mapping[int, Any] | None = None
    ids: Any = None
    classes: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        index = dict(sorted((_index(layer), _whole(layer, values)) for layer, values in self.index.items()))
        if len({values.shape[:2] for values in index.values()}) != 1:
            shapes = {layer: values.shape for layer, values in index.items()}
            raise InterventionError(f"the layers of a route need the same sequences and positions, not {shapes}")
        object.__setattr__(self, "index", index)
        if self.weight is not None:
            if set(self.weight) != set(index):
                raise InterventionError(f"the route has experts of layers {[*index]} and weights of {[*self.weight]}")
            object.__setattr__(self, "weight", {k: _finite(k, self.weight[k], own) for k, own in index.items()})
        if self.ids is not None:
            object.__setattr__(self, "ids", _array(self.ids).astype(np.int64))
            if self.ids.shape != self.shape:
                raise InterventionError(f"the route's token ids are {self.ids.shape}, its experts {self.shape}")

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences, and positions of the longest."""
        sequences, length = next(iter(self.index.values())).shape[:2]
        return sequences, length

    def entries(self, layer: int) -> np.ndarray:
        """`(sequence, pos)` whether there is an entry."""
        return np.asarray(self.index[layer].reshape(*self.shape, -1)[..., 0] >= 0)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over experts and weights."""
        digest = hashlib.sha256()
        for layer, values in [*self.index.items(), *(self.weight or {}).items()]:
            digest.update(f"{layer} {values.shape} {values.dtype}\n".encode() + values.tobytes())
        return digest.hexdigest()[:16]

    def moved(self, positions: Sequence[Mapping[int, int]]) -> "Route":
        """The route for other texts: each position takes the entry of one here, those not named have none.

        Args:
            positions: for each sequence, `{position in the other text: position here}`.

        Raises:
            InterventionError: another number of sequences, nothing named, or a position without an entry.
        """
        named = [(s, _index(to), _index(at)) for s, own in enumerate(positions) for to, at in own.items()]
        if len(positions) != self.shape[0] or not named:
            raise InterventionError(
                f"{len(positions)} maps name {len(named)} positions; each of the route's {self.shape[0]} sequences "
                "needs one: {position in the other text: position in the route}"
            )
        some = np.any([self.entries(layer) for layer in self.index], axis=0)
        lacking = [(s, to, at) for s, to, at in named if to < 0 or not 0 <= at < self.shape[1] or not some[s, at]]
        if lacking:
            s, to, at = lacking[0]
            raise InterventionError(f"sequence {s}: position {to} takes the entry of {at}, where the route has none")
        places: np.ndarray = np.array(named)
        row, new, old = places[:, 0], places[:, 1], places[:, 2]

        def move(values: np.ndarray) -> np.ndarray:
            return _laid((len(values), int(new.max()) + 1), row, new, values[row, old])

        return replace(self._each(move), ids=None)

    def _each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Route":
        """All arrays changed alike."""
        index, weight = ({k: change(v) for k, v in own.items()} for own in (self.index, self.weight or {}))
        return replace(self, index=index, weight=weight or None, ids=None if self.ids is None else change(self.ids))

    @classmethod
    def joined(cls, routes: Sequence["Route"]) -> "Route":
        """The sequences of several routes, one after another; weights and ids are kept if all have them.

        Raises:
            InterventionError: none, or routes of different layers, slots or numbers of experts.
        """
        if len({tuple((k, v.shape[2:], (r.classes or {}).get(k)) for k, v in r.index.items()) for r in routes}) != 1:
            raise InterventionError("only routes of the same layers, slots and experts can be joined, and one at least")
        length = max(own.shape[1] for own in routes)

        def longer(values: np.ndarray) -> np.ndarray:
            place = np.indices(values.shape[:2])
            return _laid((len(values), length), place[0], place[1], values)

        even = [own._each(longer) for own in routes]

        def joint(parts: Sequence[Any]) -> Any:
            return None if any(part is None for part in parts) else {
                k: np.concatenate([part[k] for part in parts]) for k in routes[0].index
            }  # fmt: skip

        ids = None if any(own.ids is None for own in even) else np.concatenate([own.ids for own in even])
        return cls(joint([own.index for own in even]), joint([own.weight for own in even]), ids, routes[0].classes)

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Route":
        """The route of recorded passes; see `Trace.route`.

        Raises:
            CaptureError: nothing was recorded, or a token twice.
        """
        if not records:
            raise CaptureError("nothing was recorded, so there is no route: run the model with keep=True")
        texts, places = Texts(), list[tuple[np.ndarray, ...]]()
        for record in records:
            *place, texts = texts.place(record.at)
            places.append((place[0] >= 0, *place))
        row = np.concatenate([sequence[real] for real, sequence, *_ in places])
        at = np.concatenate([position[real] for real, _, position, _ in places])
        shape = texts.begun, int(at.max()) + 1
        times = np.bincount(row * shape[1] + at)
        if times.max() > 1:
            raise CaptureError(
                f"token {times.argmax() % shape[1]} of sequence {times.argmax() // shape[1]} ran twice, as rejected "
                "drafts do: record one pass over the final text"
            )

        def laid(parts: Sequence[np.ndarray]) -> np.ndarray:
            real = (mask for mask, *_ in places)
            return _laid(shape, row, at, np.concatenate([own[mask] for own, mask in zip(parts, real, strict=True)]))

        routers = records[0].layers
        return cls(
            {k: laid([r.layers[k].index.numpy() for r in records]) for k in routers},
            {k: laid([r.layers[k].weight.numpy() for r in records]) for k in routers},
            None if any(r.at.ids is None for r in records) else laid([ids for *_, ids in places]),
            {k: routing.logits.shape[-1] for k, routing in routers.items()},
        )


@dataclass(frozen=True, eq=False)
class Texts:
    """The sequences that passes were about, numbered as they begin. A pass begins one with each of its rows, and with
    each further text of a packed row; one whose tokens follow a cache goes on with the rows of the pass before.

    Attributes:
        rows: sequence that each row of the last pass ended with; begun: how many sequences there have been.
    """

    rows: np.ndarray | None = None
    begun: int = 0

    def place(self, at: Pass) -> tuple[np.ndarray, np.ndarray, np.ndarray, "Texts"]:
        """`(batch, pos)` sequence (-1 on padding), position and token id (-1 if not known), and what comes next."""
        ids = torch.full_like(at.position, -1) if at.ids is None else at.ids
        mask, position, token = torch.stack([at.mask.to(ids), at.position.to(ids), ids]).cpu().numpy()  # one copy
        real = mask != 0
        if at.phase == "decode" and self.rows is not None and len(self.rows) == len(real):
            sequence = np.broadcast_to(self.rows[:, None], real.shape)
        else:
            begins = real & ((real.cumsum(1) == 1) | (position == 0))
            texts = np.maximum(begins.cumsum(1), 1)
            sequence = self.begun + texts - 1 + (texts[:, -1].cumsum() - texts[:, -1])[:, None]
        after = Texts(sequence[:, -1], max(self.begun, int(sequence.max()) + 1))
        return np.where(real, sequence, -1), position, np.where(real, token, -1), after


def _laid(shape: tuple[int, int], row: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values at their (sequence, position), -1 elsewhere."""
    blank = np.full((*shape, *values.shape[row.ndim :]), -1, dtype=values.dtype)
    blank[row, at] = values
    return blank


def _array(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = values.float() if values.is_floating_point() else values
    return np.asarray(values)


def _whole(layer: int, values: Any) -> np.ndarray:
    """Experts as int32, each token with all its slots or none."""
    found = _array(values)
    if found.ndim not in (3, 4) or not found.size or found.dtype.kind not in "iu":
        raise InterventionError(
            f"layer {layer} of the route has to be integers (sequence, pos, slot), not {found.dtype} of {found.shape}"
        )
    ordered = np.sort(found.astype(np.int64), -1)
    for wrong, what in (
        ((ordered < -1).any(-1), "a negative expert"),
        ((ordered == -1).any(-1) & (ordered >= 0).any(-1), "only some slots filled"),
        (((np.diff(ordered, axis=-1) == 0) & (ordered[..., 1:] >= 0)).any(-1), "an expert twice"),
    ):
        if wrong.any():
            sequence, position = np.argwhere(wrong)[0][:2]
            raise InterventionError(f"layer {layer} of the route: token {position} of sequence {sequence} has {what}")
    return found.astype(np.int32)


def _finite(layer: int, values: Any, index: np.ndarray) -> np.ndarray:
    """Weights as float32."""
    found = _array(values)
    if found.shape != index.shape or found.dtype.kind != "f" or not np.isfinite(found[index >= 0]).all():
        raise InterventionError(
            f"layer {layer} of the route needs weights that are finite floats of {index.shape}, not {found.dtype} of "
            f"{found.shape}"
        )
    return found.astype(np.float32)
