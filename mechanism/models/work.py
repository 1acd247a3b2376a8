"""Work of a model, beforehand and as it is done: tokens that pass through routed layers, each layer counting."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..trace import find_sites
from .passes import batches_by_length

PROGRESS = "MECHANISM_PROGRESS"
"""Environment variable with the file that a page writes its work to while `mechanism run` waits for it."""
EVERY = 0.5  # seconds between two writes


class Work(NamedTuple):
    """Work of one kind.

    Attributes:
        kind: `routes`, `sweeps`, `chooses` and the like, each timed apart; tokens: through how many layers how many
            pass, their product.
        disk: bytes that its result takes at most, before compression.
        at_most: `tokens` are a bound, since how many pass depends on what is found.
    """

    kind: str
    tokens: float
    disk: int = 0
    at_most: bool = False


class Meter:
    """Counts the tokens that the routers of a model see: a layer that a pass leaves out does not count.

    Args:
        path: where to write what was done, with the seconds since the first pass; nowhere without it.

    Attributes:
        done: tokens times layers; seconds: from the first layer of the first pass to the last one.
        studies: both, as they were when the last study of a page was finished.
    """

    def __init__(self, model: nn.Module, path: Path | None = None) -> None:
        self.done, self.path, self.studies = 0, path, dict[str, float]()
        self._start = self._now = self._written = 0.0
        self._handles = [
            site.router.register_forward_pre_hook(_Count(self, site.heads), with_kwargs=True)
            for site in find_sites(model)
        ]

    @property
    def seconds(self) -> float:
        """See there."""
        return self._now - self._start

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop counting."""
        self._tell()
        for handle in self._handles:
            handle.remove()

    def add(self, tokens: int) -> None:
        """Count some that now enter a layer, and from time to time write down what was done before them."""
        self._now = time.monotonic()
        self._start = self._start or self._now
        if self._now - self._written > EVERY:
            self._tell()
        self.done += tokens

    def mark(self) -> None:
        """A study is finished: what else the page passes, after resampling, was not counted beforehand."""
        self.studies = {"tokens": self.done, "seconds": self.seconds}
        self._tell()

    def _tell(self) -> None:
        if self.path is not None and self.done:
            self._written, draft = self._now, self.path.with_suffix(".tmp")
            told = {"tokens": self.done, "seconds": self.seconds, "studies": self.studies}
            with suppress(OSError):  # a full disk, or nobody who waits any more: no reason to stop
                draft.write_text(json.dumps(told), "utf-8")
                draft.replace(self.path)


@dataclass(frozen=True, eq=False)
class _Count:
    """A hook before a router; a class of its own, so that a model which has one can be sent to another process."""

    meter: Meter
    heads: int

    def __call__(self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        hidden = next(own for own in (*args, *kwargs.values()) if isinstance(own, Tensor))
        self.meter.add(hidden.numel() // hidden.shape[-1] // self.heads)


_WATCHED: list[Meter] = []


def watch(model: nn.Module) -> None:
    """Count for the process that waits for this page, if one does."""
    if path := os.environ.get(PROGRESS):
        _WATCHED[:] = [Meter(model, Path(path))]


def study_finished() -> None:
    """See `Meter.mark`; nothing where nobody waits."""
    for meter in _WATCHED:
        meter.mark()


def padded(lengths: Sequence[int], batch_tokens: int = 4096) -> int:
    """Tokens that sequences of these lengths take in batches, with padding; see `batches_by_length`."""
    batches = batches_by_length([range(n) for n in lengths], batch_tokens) if len(lengths) else []
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)
