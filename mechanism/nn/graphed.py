"""A training step as a CUDA graph: a small model's step is thousands of kernels that a host cannot start in time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .dispatch import static_shapes
from .language import tell

if TYPE_CHECKING:
    from .training import Trainer


class GraphedStep:
    """The step of a trainer on a GPU, captured once and replayed. The host reads losses once in `BLOCK` steps and makes
    the batches of the next steps meanwhile.

    Raises:
        RuntimeError: a layer looks at values on the host during capture.
    """

    BLOCK = 32

    def __init__(self, trainer: "Trainer") -> None:
        self.trainer, self.pool = trainer, ThreadPoolExecutor(1)
        self.ahead: dict[int, Future] = {}
        self.ids, lang = self._batch(trainer.step)
        self.ids = self.ids.to(trainer.device)
        self.lang = None if lang is None else lang.to(trainer.device)
        self.rate = torch.zeros((), device=trainer.device)
        self.log = torch.zeros(self.BLOCK, 3, device=trainer.device)
        trainer.set_rate(self.rate)
        self._capture()

    def _capture(self) -> None:
        """Steps that warm up what a graph may not begin, then the graph; the trainer's state is put back in place."""
        trainer = self.trainer
        before = {name: value.clone() for name, value in trainer.state().items()}
        with static_shapes(), nullcontext() if self.lang is None else tell(trainer.model, self.lang):
            with torch.cuda.stream(stream := torch.cuda.Stream()):
                stream.wait_stream(torch.cuda.default_stream())
                for _ in range(2):
                    trainer.update(self.ids)
            torch.cuda.default_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
                self.found = torch.stack(trainer.update(self.ids))
        for name, value in trainer.state().items():
            value.copy_(before[name]) if name in before else value.zero_()

    def __call__(self, steps: int) -> Iterator[tuple[Sequence[float], float]]:
        """Take so many steps, at most `BLOCK`; then each one's loss, balance loss and norm of the gradient, and its
        learning rate."""
        config, restart = self.trainer.config, max(self.trainer.restarts, default=0)
        first = self.trainer.step
        rates = [config.rate(step, restart) for step in range(first, first + steps)]
        for row, rate in enumerate(rates):
            ids, lang = self._batch(first + row)
            self.ids.copy_(ids, non_blocking=True)
            if lang is not None and self.lang is not None:
                self.lang.copy_(lang, non_blocking=True)
            self.rate.fill_(rate)
            self.graph.replay()
            self.log[row].copy_(self.found)
        yield from zip(self.log[:steps].tolist(), rates, strict=True)

    def _batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The batch of a step; those of the next steps are begun."""
        for coming in range(step, min(step + self.BLOCK, self.trainer.config.steps)):
            if coming not in self.ahead:
                self.ahead[coming] = self.pool.submit(self.trainer.batch, coming)
        return self.ahead.pop(step).result()
