"""Work cut into jobs whose results are kept one by one: on one machine or an engine's, resumable, merged exactly."""

import hashlib
import importlib
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import joblib
import numpy as np
import torch

from ...models.load import load_model
from ...models.passes import pad
from .effects import BatchSweep, Settings

EngineName = Literal["local", "dask", "ray"]
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


@dataclass(frozen=True)
class Engine:
    """Where jobs run.

    Attributes:
        name: `local`, `dask` (needs the extra `dask`) or `ray` (the extra `ray`).
        jobs: processes of `local`; an engine has its own number.
        address: of a running scheduler; without it one is started on this machine.

    Raises:
        ValueError: an unknown engine, or less than one process.
    """

    name: EngineName = "local"
    jobs: int = 1
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(EngineName):
            raise ValueError(f"no engine {self.name!r}; there are {', '.join(get_args(EngineName))}")
        if self.jobs < 1:
            raise ValueError(f"{self.jobs} processes are too few")

    @property
    def inside(self) -> bool:
        """Whether jobs run in this very process."""
        return self.name == "local" and self.jobs == 1

    @contextmanager
    def started(self) -> Iterator[dict[str, Any]]:
        """Arguments of `joblib.parallel_config`, as long as the engine runs.

        Raises:
            ValueError: the engine is not installed.
        """
        if self.name == "dask":
            with self._module("distributed").Client(self.address) as client:
                yield {"backend": "dask", "client": client}
        elif self.name == "ray":
            self._module("ray").init(address=self.address, ignore_reinit_error=True)
            self._module("ray.util.joblib").register_ray()
            yield {"backend": "ray"}
        else:
            yield {"backend": "loky" if self.jobs > 1 else "sequential", "n_jobs": self.jobs}

    def _module(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"engine {self.name} is not installed ({error}): pip install 'mechanism[{self.name}]'"
            ) from error


LOCAL = Engine()


@lru_cache(maxsize=1)
def _loaded(spec: str, device: str, dtype: str) -> Any:
    return load_model(spec, device, dtype)[0]


def run_job(job: Job) -> Results:
    """Sweep one shard; a worker loads the model once."""
    model = _loaded(*job.model) if isinstance(job.model, tuple) else job.model
    ids, mask = (t.to(model.device) for t in pad(job.ids, job.padding))
    found = BatchSweep(model, ids, mask, job.settings).run()
    names = ("kl", "own", "loss", "selections", "tokens", "targets")
    return {name: getattr(found, name) for name in names}


def finish(
    jobs: Sequence[Job],
    folder: Path,
    engine: Engine = LOCAL,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> Iterator[tuple[Job, Results]]:
    """Results of all jobs, in the order in which they come: those kept in `folder` first, the others as they are
    computed, each kept before it is given. A worker that dies costs its unfinished job only, where the engine starts it
    again (dask does).

    Raises:
        KeyboardInterrupt: with a sentence on what is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total, done, kept, todo = sum(job.weight for job in jobs), 0.0, 0, []
    for job in jobs:
        if (found := _read(folder / f"{job.key}.npz")) is None:
            todo.append(job)
            continue
        done, kept = done + job.weight, kept + 1
        progress(done, total)
        yield job, found
    try:
        for job, found in _computed(todo, engine):
            _write(folder / f"{job.key}.npz", found)
            done, kept = done + job.weight, kept + 1
            progress(done, total)
            yield job, found
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{kept} of {len(jobs)} shards are kept in {folder}; the same command goes on from there."
        ) from None


def _computed(jobs: Sequence[Job], engine: Engine) -> Iterator[tuple[Job, Results]]:
    if not jobs:
        return
    if engine.inside:
        yield from ((job, run_job(job)) for job in jobs)
        return
    with engine.started() as config, joblib.parallel_config(**config):
        kind = "generator_unordered" if joblib.Parallel()._backend.supports_return_generator else "list"
        parallel = joblib.Parallel(return_as=kind, batch_size=1)
        numbered = parallel(joblib.delayed(_numbered)(i, job) for i, job in enumerate(jobs))
        yield from ((jobs[i], found) for i, found in numbered)


def _numbered(number: int, job: Job) -> tuple[int, Results]:
    return number, run_job(job)


def _write(path: Path, found: Results) -> None:
    stream = io.BytesIO()
    np.savez(stream, **found)  # type: ignore[arg-type]
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "wb") as file:
        file.write(stream.getvalue())
    Path(name).replace(path)


def _read(path: Path) -> Results | None:
    """What is kept of a job; None if nothing, or nothing whole."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            return {name: file[name] for name in file.files}
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
        own = layers if job.settings.layers is None else job.settings.layers
        rows, columns = np.array(job.numbers), np.array([layers.index(layer) for layer in own])
        covered[np.ix_(rows, columns)] += 1
        for name, values in found.items():
            if values.ndim == 1:
                _room(merged, name, (sequences,), values)[rows] = values
            elif values.ndim == 3:
                _room(merged, name, (sequences, len(layers), values.shape[2]), values)[np.ix_(rows, columns)] = values
            else:
                shape = (values.shape[0], sequences, len(layers), values.shape[3])
                for mode, own_values in zip(_room(merged, name, shape, values), values, strict=True):
                    mode[np.ix_(rows, columns)] = own_values
    if (covered != 1).any():
        raise ValueError(f"{int((covered != 1).sum())} cells of sequence and layer are missing or in several shards")
    return merged


def _room(merged: Results, name: str, shape: tuple[int, ...], like: np.ndarray) -> np.ndarray:
    return merged.setdefault(name, np.zeros(shape, dtype=like.dtype))


def torch_bytes(model: torch.nn.Module) -> int:
    """Bytes of a number of the model's dtype."""
    return next(model.parameters()).element_size()


def fingerprint(model: torch.nn.Module, each: int = 64) -> str:
    """Twelve hexadecimal digits over the names, shapes and types of the parameters and at most `2 * each` numbers of
    every one, evenly spaced: two models that were trained differ."""
    digest = hashlib.sha256()
    for name, values in model.named_parameters():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\0".encode())
        flat = values.detach().reshape(-1)
        digest.update(flat[:: max(1, len(flat) // each)].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
