"""Work cut into jobs whose results are kept one by one: run by joblib, here or elsewhere, resumable, merged exactly."""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch

from ...models.load import load_model
from ...models.passes import pad
from .effects import BatchSweep, Settings

Results = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Job:
    """One shard: some sequences, some layers.

    Attributes:
        key: its name among the jobs of a sweep; weight: its share of the work, for progress.
        model: a model, or how to load it: name, device, dtype.
        numbers: which sequences of the sweep; ids: their tokens; padding: token to pad with.
        settings: layers, modes and the rest.
    """

    key: str
    weight: float
    model: Any
    numbers: tuple[int, ...]
    ids: Sequence[Sequence[int]]
    padding: int
    settings: Settings


@lru_cache(maxsize=1)
def _loaded(spec: str, device: str, dtype: str) -> Any:
    return load_model(spec, device, dtype)[0]


def run_job(job: Job) -> Results:
    """Sweep one shard; a worker loads the model once."""
    model = _loaded(*job.model) if isinstance(job.model, tuple) else job.model
    ids, mask = (t.to(model.device) for t in pad(job.ids, job.padding))
    found = BatchSweep(model, ids, mask, job.settings).run()
    return {name: getattr(found, name) for name in ("kl", "own", "loss", "selections", "tokens", "targets")}


def finish(
    jobs: Sequence[Job], folder: Path, progress: Callable[[float, float], None] = lambda done, total: None
) -> Iterator[tuple[Job, Results]]:
    """Results of all jobs, in the order in which they come: those kept in `folder` first, the others as they are
    computed, each kept before it is given. Jobs run where `joblib.parallel_config` says, in this process without it. A
    worker that dies costs its unfinished job only, where the backend starts it again (dask does).

    Raises:
        KeyboardInterrupt: with a sentence on what is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total, done, kept = sum(job.weight for job in jobs), 0.0, 0
    todo: list[Job] = []

    def known() -> Iterator[tuple[Job, Results]]:
        for job in jobs:
            if (found := _read(folder / f"{job.key}.npz")) is None:
                todo.append(job)
            else:
                yield job, found

    def made() -> Iterator[tuple[Job, Results]]:
        for job, found in _computed(todo):
            _write(folder / f"{job.key}.npz", found)
            yield job, found

    try:
        for job, found in chain(known(), made()):
            done, kept = done + job.weight, kept + 1
            progress(done, total)
            yield job, found
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{kept} of {len(jobs)} shards are kept in {folder}; the same command goes on from there."
        ) from None


def _computed(jobs: Sequence[Job]) -> Iterator[tuple[Job, Results]]:
    """Results as they come; where a backend gives a list alone, after every round of as many as it runs at once."""
    backend = joblib.Parallel()._backend
    if backend.supports_return_generator:
        parts, kind = [range(len(jobs))], "generator_unordered"
    else:
        size = max(1, joblib.effective_n_jobs())
        parts, kind = [range(i, min(i + size, len(jobs))) for i in range(0, len(jobs), size)], "list"
    for part in parts:
        parallel = joblib.Parallel(return_as=kind, batch_size=1)
        for number, found in parallel(joblib.delayed(_numbered)(i, jobs[i]) for i in part):
            yield jobs[number], found


def _numbered(number: int, job: Job) -> tuple[int, Results]:
    return number, run_job(job)


def _write(path: Path, found: Results) -> None:
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with draft.open("wb") as file:
        np.savez(file, **found)  # type: ignore[arg-type]
    draft.replace(path)


def _read(path: Path) -> Results | None:
    """What is kept of a job; None if nothing, or nothing whole."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def merge(parts: Sequence[tuple[Job, Results]], sequences: int, layers: Sequence[int]) -> Results:
    """Shards put together: every cell comes from exactly one, so that nothing is added up and nothing depends on order.

    Raises:
        ValueError: a cell is missing, or is in two shards.
    """
    covered = np.zeros((sequences, len(layers)), dtype=np.int64)
    merged: Results = {}
    for job, found in parts:
        rows, columns = np.array(job.numbers), np.flatnonzero(np.isin(layers, job.settings.layers or layers))
        covered[np.ix_(rows, columns)] += 1
        for name, values in found.items():
            shape, at = (sequences,), (rows,)  # type: tuple, tuple
            if values.ndim > 1:
                shape = (*values.shape[:-3], sequences, len(layers), values.shape[-1])
                at = (..., rows[:, None], columns, slice(None))
            merged.setdefault(name, np.zeros(shape, values.dtype))[at] = values
    if (covered != 1).any():
        raise ValueError(f"{int((covered != 1).sum())} cells of sequence and layer are missing or in several shards")
    return merged


def fingerprint(model: torch.nn.Module, each: int = 64) -> str:
    """Twelve hexadecimal digits over the names, shapes and types of the parameters and at most `2 * each` numbers of
    every one, evenly spaced: two models that were trained differ."""
    digest = hashlib.sha256()
    for name, values in model.named_parameters():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\0".encode())
        flat = values.detach().reshape(-1)
        digest.update(flat[:: max(1, len(flat) // each)].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
