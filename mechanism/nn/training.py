"""Training that survives being killed: stateless batches, atomic checkpoints, bit-identical resumption."""

import csv
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from .checkpoint import Checkpoint, TrainingError, checkpoint_files, checkpoint_path, read_checkpoint
from .dispatch import static
from .graphed import GraphedStep
from .language import tell
from .lm import LMConfig, routers
from .optim import build_optimisers
from .router import TopKRouter, balance_loss, z_loss
from .train_config import TrainConfig

DEVICE: ContextVar[str] = ContextVar("device", default="cpu")
"""Where trainers work that are not told."""
CHUNKED = nn.LinearCrossEntropyOptions(batch_chunk_size=256) if hasattr(nn, "LinearCrossEntropyOptions") else None
"""Of torch from 2.13 on."""


@contextmanager
def deferred_interrupt() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM only fill the list that is given out: a step is never cut in half. Outside the main thread,
    where signals cannot be caught, nothing changes."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {s: signal.signal(s, lambda number, frame: received.append(number)) for s in signals}
    try:
        yield received
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _observer(routed: list[tuple[Tensor, Tensor]]) -> Callable[[nn.Module, tuple, tuple], None]:
    """A hook that appends a router's logits and selection in training; a function, so that a copy of the model does not
    copy the trainer."""

    def observe(router: nn.Module, args: tuple, out: tuple[Tensor, Tensor, Tensor]) -> None:
        if router.training:
            routed.append((out[0], out[2]))

    return observe


class Trainer:
    """One run.

    Args:
        config: the run.
        batches: `step -> (batch, length + 1)` token ids, or these and the language id `(batch,)` of each sequence; a
            pure function of the step.
        folder: where checkpoints and `metrics.csv` live.
        probe: called as `probe(model, tokens)` at the probe steps.
        device: None for `DEVICE`. On a GPU the step is a CUDA graph (see `GraphedStep`), and all experts are computed
            for all tokens: the configuration's `experts` and `compile` are for a CPU, from which numbers differ by
            rounding.

    Attributes:
        step: steps done.
        restarts: steps after which the optimiser began afresh, because the checkpoint there held weights only.
    """

    KEEP = 2
    CHECKPOINT_SECONDS = 240.0  # a checkpoint is written at least this often

    def __init__(
        self,
        config: TrainConfig,
        batches: Callable[[int], Any],
        folder: Path,
        probe: Callable[[PreTrainedModel, int], None] = lambda model, tokens: None,
        device: str | None = None,
    ) -> None:
        self.config, self.batches, self.folder, self.probe = config, batches, Path(folder), probe
        self.device = torch.device(device or DEVICE.get())
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.model = config.model.build().to(self.device)
        if isinstance(config.model, LMConfig) and config.model.experts:
            self.model.set_experts_implementation("all" if self.on_gpu else config.experts)
        if not self.on_gpu:
            # At 256 positions plain attention is twice as fast on a CPU as the flash kernel, whose backward dominates.
            self.model.set_attn_implementation("eager")
        self.optimisers = build_optimisers(self.model, config.lr, config.weight_decay, getattr(torch, config.dtype))
        self._routed: list[tuple[Tensor, Tensor]] = []
        for router in routers(self.model):
            router.register_forward_hook(_observer(self._routed))
        self._own = [router for router in routers(self.model) if isinstance(router, TopKRouter)]
        self._scoring = [getattr(router, "scoring", "softmax") for router in routers(self.model)]
        self._chunked = config.dtype == "float32" and not self.on_gpu and CHUNKED is not None
        self._losses, self._states = self.losses, self._last_states
        if config.compile and self._chunked:
            self._states = torch.compile(self._states)
        elif config.compile and not self.on_gpu:
            self._losses = torch.compile(self._losses)
        self._graphed: GraphedStep | None = None
        self.step = 0
        self.restarts: tuple[int, ...] = ()
        self._resume()

    def run(
        self, progress: Callable[[dict], None] = lambda row: None, stop_after: int | None = None
    ) -> PreTrainedModel:
        """Train to the end (or `stop_after` steps from here); returns the model.

        Raises:
            TrainingError: the disk is full, or the loss is no longer finite.
            KeyboardInterrupt: after a checkpoint of the last whole step.
        """
        last, saved = min(self.config.steps, self.step + (stop_after or self.config.steps)), time.monotonic()
        try:
            with deferred_interrupt() as interrupted:
                while self.step < last and not interrupted:
                    self._probe()
                    for row in self._advance(last):
                        self._log(row)
                        progress(row)
                    if time.monotonic() - saved > self.CHECKPOINT_SECONDS:
                        self.save()
                        saved = time.monotonic()
                self.save()
        except OSError as error:
            raise TrainingError(
                f"cannot write to {self.folder}: {error.strerror}; free some space and run the same command again, "
                f"it goes on from the last checkpoint"
            ) from error
        if interrupted:
            raise KeyboardInterrupt(f"stopped after step {self.step}; run the same command again to go on")
        self._probe()
        return self.model

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def made_on(self) -> dict[str, str]:
        """What a record says of the device: nothing of a CPU, else its name."""
        return {"device": torch.cuda.get_device_name(self.device)} if self.on_gpu else {}

    def _probe(self) -> None:
        if self.step in self.config.probe_steps():
            self.model.eval()
            with torch.no_grad():
                self.probe(self.model, self.step * self.config.step_tokens)
            self.model.train()

    def losses(self, ids: Tensor) -> tuple[Tensor, ...]:
        """Loss, balance loss, and the weighted z-loss of each router that has one."""
        hidden, balance, *z = self._states(ids[:, :-1])
        with self._precision():
            return self._next_token_loss(hidden.flatten(0, 1), ids[:, 1:].reshape(-1)), balance, *z

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def _last_states(self, ids: Tensor) -> tuple[Tensor, ...]:
        """Last hidden states `(sequence, position, hidden)`; then as `losses`, from the balance loss on."""
        self._routed.clear()
        with self._precision():
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        routed = zip(self._routed, self._scoring, strict=True) if self.config.balance else ()
        terms = [balance_loss(*one, scoring) for one, scoring in routed]
        z = [r.z_weight * z_loss(logits) for r, (logits, _) in zip(self._own, self._routed, strict=False) if r.z_weight]
        none = torch.zeros((), device=self.device)
        return hidden, torch.stack(terms).mean() if terms else none, *z

    def _next_token_loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of `(token, hidden)`. In float32 the logits are made, used and dropped a chunk at a time,
        which halves the time of a wide vocabulary on a CPU; torch.compile knows no chunks, so that it gets the model
        only, and in bfloat16 they are slower than the whole."""
        head = self.model.lm_head
        if not self._chunked:
            return F.cross_entropy(head(hidden).float(), targets)
        return F.linear_cross_entropy(hidden, head.weight, targets, options=CHUNKED)

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """On the host: ids `(batch, length + 1)` of a step, and each sequence's language if the stream tells it."""
        given = self.batches(step)
        tokens, lang = given if isinstance(given, tuple) else (given, None)
        found = torch.as_tensor(tokens, dtype=torch.long), None if lang is None else torch.as_tensor(lang)
        return (found[0].pin_memory(), found[1]) if self.on_gpu else found

    def advance(self) -> dict:
        """One training step, neither logged nor saved; returns its row of the metrics.

        Raises:
            TrainingError: the loss is not finite.
        """
        return next(self._advance(self.step + 1))

    def _advance(self, last: int) -> Iterator[dict]:
        """Rows of the metrics of the steps up to `last` that are taken at once: on a CPU one, on a GPU a block, which
        ends where the model is probed."""
        started = time.monotonic()
        if self.on_gpu:
            self._graphed = self._graphed or GraphedStep(self)
            ends = [step for step in (*self.config.probe_steps(), last) if step > self.step]
            found: Any = list(self._graphed(min(*ends, self.step + GraphedStep.BLOCK) - self.step))
        else:
            found = [self._step()]
        seconds = (time.monotonic() - started) / len(found)
        for (loss, balance, norm), rate in found:
            self._refuse_infinite(loss)
            self.step += 1
            yield {
                "step": self.step,
                "tokens": self.step * self.config.step_tokens,
                "loss": round(loss, 6),
                "balance": round(balance, 6),
                "grad_norm": round(norm, 6),
                "lr": round(rate, 9),
                "seconds": round(seconds, 6 if self.on_gpu else 3),
            }

    def _step(self) -> tuple[Sequence[float], float]:
        """A step on a CPU: loss, balance loss and norm of the gradient, and the learning rate."""
        self.set_rate(rate := self.config.rate(self.step, max(self.restarts, default=0)))
        ids, lang = self.batch(self.step)
        with nullcontext() if lang is None else tell(self.model, lang):
            return tuple(value.item() for value in self.update(ids)), rate

    def set_rate(self, rate: float | Tensor) -> None:
        """The learning rate of both optimisers."""
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate

    def update(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Forward, backward and the optimisers' step; loss, balance loss and norm of the gradient."""
        loss, balance, *z = self._losses(ids)
        if not static():
            self._refuse_infinite(loss.item())
        sum(z, loss + self.config.balance * balance).backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        for router in self._own:
            router.update_correction()
        return loss.detach(), balance.detach(), norm

    def _refuse_infinite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainingError(f"the loss is {loss} at step {self.step}; lower lr and start again")

    def _log(self, row: dict) -> None:
        path = self.folder / "metrics.csv"
        fresh = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)

    def save(self) -> Path:
        """Write a checkpoint, whole or not at all; the newest two and nothing else are kept."""
        path = checkpoint_path(self.folder, self.step)
        if not path.exists():
            Checkpoint(self.state(), self.step, self.restarts).write(path)
        for old in list(checkpoint_files(self.folder).values())[: -self.KEEP]:
            old.unlink()
        return path

    def state(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint, not copied: of the model and of both optimisers."""
        state = {f"model.{name}": p.detach() for name, p in self._tensors().items()}
        for o, optimiser in enumerate(self.optimisers):
            for i, slots in optimiser.state_dict()["state"].items():
                state |= {f"optimiser.{o}.{i}.{key}": value for key, value in slots.items()}
        return state

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters, and the corrections of routers that balance without a loss."""
        saved = self.model.state_dict().keys()
        return dict(self.model.named_parameters()) | {n: b for n, b in self.model.named_buffers() if n in saved}

    def _resume(self) -> None:
        """Go on from the newest checkpoint; later rows of the metrics are dropped."""
        if found := checkpoint_files(self.folder):
            self.load(read_checkpoint(found[max(found)]))
        path = self.folder / "metrics.csv"
        if path.exists():
            lines = path.read_text().splitlines()
            kept = lines[:1] + [line for line in lines[1:] if int(line.split(",")[0]) <= self.step]
            path.write_text("\n".join(kept) + "\n")

    def load(self, checkpoint: Checkpoint) -> None:
        """Put the trainer into the state of a checkpoint. After one of weights only the optimisers begin afresh, which
        counts as a restart."""
        state = checkpoint.state
        with torch.no_grad():
            for name, p in self._tensors().items():
                p.copy_(state[f"model.{name}"])
        for o, optimiser in enumerate(self.optimisers):
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith(f"optimiser.{o}."):
                    _, _, index, slot = key.split(".", 3)
                    slots.setdefault(int(index), {})[slot] = value
            optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})
        self._graphed = None
        again = () if checkpoint.whole or checkpoint.step in checkpoint.restarts else (checkpoint.step,)
        self.step, self.restarts = checkpoint.step, (*checkpoint.restarts, *again)
