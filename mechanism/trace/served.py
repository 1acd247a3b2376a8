"""Routing that a serving engine recorded, counted by the same statistics as routing observed here.

vLLM (`--enable-return-routed-experts`) and SGLang (`return_routed_experts`) give integer arrays `(token, column, slot)`
of selected experts, a column being a layer. Probabilities and entropy cannot be known from them and read NaN.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import ArrayLike

from .errors import CaptureError
from .route import Route
from .stats import RoutingStats
from .sums import PHASES


@dataclass(frozen=True)
class Served:
    """A served model, and how its engine writes routing down.

    Attributes:
        model: name and revision of the model; engine: name and version of what served it (both become provenance).
        experts: routed experts of a layer.
        layers: the model's decoder layers, where the arrays have a column for each; else the decoder layer of each
            column, None for a column to leave out (dense layers that the engine fills with zeros).
        fill: what the engine writes into an unfilled slot, outside `0..experts - 1`. SGLang: 255.

    Raises:
        CaptureError: no experts, a repeated layer, or a fill value that is the number of an expert.
    """

    model: str
    engine: str
    experts: int
    layers: int | Sequence[int | None]
    fill: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.layers, int):
            object.__setattr__(self, "layers", tuple(self.layers))
        named = [layer for layer in self.columns if layer is not None]
        if self.experts < 1 or not named or min(named) < 0 or len(set(named)) < len(named):
            raise CaptureError(
                f"{self.model} cannot have {self.experts} experts in layers {self.layers}: both have to be given, and "
                "no layer twice"
            )
        if self.fill is not None and 0 <= self.fill < self.experts:
            raise CaptureError(
                f"fill value {self.fill} is also the number of an expert of {self.model} (0..{self.experts - 1}); "
                "unfilled slots cannot be told apart"
            )

    @property
    def columns(self) -> tuple[int | None, ...]:
        """Decoder layer of each column."""
        return tuple(range(self.layers)) if isinstance(self.layers, int) else tuple(self.layers)

    def count(
        self,
        stats: RoutingStats,
        ids: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        phase: str | None = None,
        prompt_tokens: int | None = None,
        mask: ArrayLike | None = None,
        group: str | None = None,
    ) -> RoutingStats:
        """Count one request, or nothing of it if that fails.

        A slot that holds the fill value is not a selection. A token none of whose slots of a layer is filled was not
        recorded there and is not a token of that layer. A layer without a single filled slot is dense, unless its
        column was given a layer by name.

        Args:
            stats: fresh, or begun with the same model, engine, layers and kind of array.
            ids: `(token, column, slot)` integers; weights: the same shape, floats, as the experts receive them.
            phase: `prefill` or `decode`; or prompt_tokens: that many first rows are prefill, the others decode.
            mask: `(token,)` true for real tokens; all without it.
            group: what the request is counted under; may be left out where the statistics have one group.

        Raises:
            CaptureError: one sentence on what is wrong with the arrays or the arguments.
        """
        index = self._index(ids)
        real = _mask(mask, len(index))
        gates = None if weights is None else _weights(weights, index, real, self.fill)
        self._check(index, real)
        group = stats.groups[0] if group is None and len(stats.groups) == 1 else str(group)
        stats.require([group])
        spans = _spans(phase, prompt_tokens, real)
        layers = self._routed(index, real)
        found = ("selections",) if gates is None else ("selections", "weight")
        origin = {"model": self.model, "engine": self.engine, "experts": self.experts, "top_k": index.shape[2]}
        stats.bind(tuple(layers), self.experts, origin, found)
        filled = index != self.fill
        known = filled & (index >= 0) & (index < self.experts)
        classes = torch.from_numpy(np.where(known, index, self.experts))
        try:
            for (layer, column), (phase, rows) in product(layers.items(), spans.items()):
                mask = torch.from_numpy(rows & filled[:, column].any(1))
                weight = None if gates is None else torch.from_numpy(gates[None, :, column])
                if bool(mask.any()):
                    stats.stage([layer], classes[None, :, column], weight, {}, mask[None], phase, [group])
            stats.commit([group])
        finally:
            stats.discard()
        return stats

    def route(
        self,
        ids: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        mask: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        first: int = 0,
    ) -> Route:
        """One request as the route of one sequence, to be replayed; `Route.joined` makes one of several.

        Args:
            ids, weights: as for `count`, prompt and generated text one after the other; a row is a position, and one
                without a filled slot in a layer has no entry there.
            mask: `(token,)` false for rows that have no entry either.
            tokens: `(pos,)` token ids of the whole text, which a replay compares.
            first: position of the first row, where the engine recorded the text from there on.

        Raises:
            CaptureError: see `count`; InterventionError: a token with only some slots filled, or see `Route`.
        """
        index = self._index(ids)
        real = _mask(mask, len(index))
        gates = None if weights is None else _weights(weights, index, real, self.fill)
        self._check(index, real)
        layers = self._routed(index, real)
        index = np.where((index != self.fill) & real[:, None, None], index, -1)
        text = None if tokens is None else _array(tokens, "token ids")
        length = max(first + len(index), 0 if text is None else len(text))

        def laid(values: np.ndarray, start: int) -> np.ndarray:
            blank = np.full((1, length, *values.shape[1:]), -1, values.dtype)
            blank[0, start : start + len(values)] = values
            return blank

        def layered(values: np.ndarray) -> dict[int, np.ndarray]:
            return {layer: laid(values[:, column], first) for layer, column in layers.items()}

        return Route(
            layered(index),
            None if gates is None else layered(gates),
            None if text is None else laid(text, 0),
            dict.fromkeys(layers, self.experts),
        )

    def _index(self, ids: ArrayLike) -> np.ndarray:
        index = _array(ids, "routed experts")
        if index.ndim != 3:
            raise CaptureError(f"routed experts have to be (token, layer, slot), not {index.shape}")
        if index.dtype.kind not in "iu":
            raise CaptureError(f"routed experts have to be integers, not {index.dtype}")
        if index.shape[1] != len(self.columns):
            raise CaptureError(
                f"the array has {index.shape[1]} layers and {self.model} is said to have {len(self.columns)}; give the "
                "decoder layer of each column: layers=(...)"
            )
        return index.astype(np.int64)

    def _check(self, index: np.ndarray, real: np.ndarray) -> None:
        """Refuse ids of the counted columns that are no selection."""
        kept = [i for i, layer in enumerate(self.columns) if layer is not None]
        counted = index[real][:, kept]
        filled = counted != self.fill
        wrong = filled & ((counted < 0) | (counted >= self.experts))
        if wrong.any():
            token, column, slot = np.argwhere(wrong)[0]
            raise CaptureError(
                f"column {kept[column]}: expert {counted[token, column, slot]} of token {np.flatnonzero(real)[token]} "
                f"is out of range 0..{self.experts - 1}; if it stands for an unfilled slot, give it as fill"
            )
        ordered = np.sort(counted, -1)
        twice = (np.diff(ordered, axis=-1) == 0) & (ordered[..., 1:] != self.fill)
        if twice.any():
            token, column, slot = np.argwhere(twice)[0]
            raise CaptureError(
                f"column {kept[column]}: token {np.flatnonzero(real)[token]} has expert {ordered[token, column, slot]} "
                "in two slots; engines fill dense layers, and rows that they did not record, with zeros: leave such "
                "columns out with None in layers, such rows with mask"
            )

    def _routed(self, index: np.ndarray, real: np.ndarray) -> dict[int, int]:
        """Column of each decoder layer that routes, by layer."""
        filled = (index[real] != self.fill).any((0, 2))
        if not isinstance(self.layers, int):
            empty = [layer for layer, some in zip(self.columns, filled, strict=True) if layer is not None and not some]
            if empty:
                raise CaptureError(f"layers {empty} were named, and no slot of them is filled")
        found = {layer: i for i, layer in enumerate(self.columns) if layer is not None and filled[i]}
        if not found:
            raise CaptureError("no slot of any layer is filled: the engine recorded nothing")
        return dict(sorted(found.items()))


def decode_routed_experts(text: str, layers: int, top_k: int) -> np.ndarray:
    """SGLang's `routed_experts`: base64 of little-endian int32, as `(token, column, slot)`.

    Args:
        layers: columns; top_k: slots of a token in a layer.

    Raises:
        CaptureError: not base64, or not a whole number of tokens.
    """
    try:
        payload = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CaptureError(f"routed experts are not base64: {error}") from error
    if layers < 1 or top_k < 1 or not payload or len(payload) % (4 * layers * top_k):
        raise CaptureError(
            f"{len(payload)} bytes of routed experts are not a whole number of tokens of {layers} layers and {top_k} "
            "slots"
        )
    return np.frombuffer(payload, dtype="<i4").reshape(-1, layers, top_k).astype(np.int32)


def _array(values: ArrayLike, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise CaptureError(f"{what} are ragged: every token needs the same layers and slots") from error


def _mask(mask: ArrayLike | None, tokens: int) -> np.ndarray:
    real = np.ones(tokens, dtype=bool) if mask is None else _array(mask, "masks")
    if real.shape != (tokens,):
        raise CaptureError(f"the mask is {real.shape}, the array has {tokens} tokens")
    if real.dtype.kind not in "biu":
        raise CaptureError(f"the mask has to be boolean or 0 and 1, not {real.dtype}")
    if not real.any():
        raise CaptureError("there is no real token: the array is empty or the mask leaves nothing")
    return real != 0


def _weights(weights: ArrayLike, index: np.ndarray, real: np.ndarray, fill: int | None) -> np.ndarray:
    """Float64 weights, 0 where nothing is counted."""
    gates = _array(weights, "weights")
    if gates.shape != index.shape or gates.dtype.kind != "f":
        raise CaptureError(
            f"weights have to be floats of the ids' shape {index.shape}, not {gates.dtype} of {gates.shape}"
        )
    used = (index != fill) & real[:, None, None]
    if not np.isfinite(gates[used]).all():
        raise CaptureError("a weight of a filled slot is not finite")
    return np.where(used, gates, 0).astype(np.float64)


def _spans(phase: str | None, prompt_tokens: int | None, real: np.ndarray) -> dict[str, np.ndarray]:
    """`(token,)` real tokens of each phase."""
    if (phase is None) == (prompt_tokens is None):
        raise CaptureError("say which tokens are prefill: either phase or prompt_tokens")
    if phase is not None:
        if phase not in PHASES:
            raise CaptureError(f"there is no phase {phase!r}; choose {' or '.join(PHASES)}")
        return {phase: real}
    assert prompt_tokens is not None
    if not 0 <= prompt_tokens <= len(real):
        raise CaptureError(f"the prompt has {prompt_tokens} tokens, the array {len(real)}")
    first = np.arange(len(real)) < prompt_tokens
    return {"prefill": real & first, "decode": real & ~first}
