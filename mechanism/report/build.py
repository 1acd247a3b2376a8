"""The notebook build: execute what is stale, publish only what succeeded, name what failed."""

import difflib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from joblib import Parallel, delayed
from nbformat import NotebookNode
from tqdm import tqdm

from ..corpus.store import absent
from ..models.allocator import KEEP_MEMORY
from .execute import CellFailure, declared_parameters, execute, typed
from .files import COPIES, INPUTS, NOTEBOOKS, results_folder, tree_hash, write_atomic
from .normalise import normalise
from .provenance import cpu_name
from .record import keep
from .stamp import KEY, read_notebook, recorded, stamp

FAILED = Path("_build/failed")  # beside the folder of copies: what a failed notebook did up to its failure
TIMINGS = "timings.json"  # beside the copies: times differ from run to run, copies must not


@dataclass
class Built:
    """What a build did: names of the notebooks executed and skipped, the failures, and seconds per notebook."""

    executed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[CellFailure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class BuildError(RuntimeError):
    """A build that cannot start, or notebooks that failed; the message names them and their cells.

    Attributes:
        built: what was done, when notebooks failed.
    """

    def __init__(self, message: str, built: Built | None = None) -> None:
        super().__init__(message)
        self.built = built


@dataclass(frozen=True)
class _Job:
    """One notebook: its source, its copy, the folder of its records, the parameters it takes, and the stamp that its
    copy should carry."""

    source: Path
    copy: Path
    results: Path
    parameters: Mapping[str, Any]
    stamp: str

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def fresh(self) -> bool:
        """Whether the copy carries the stamp and what it recorded is still there."""
        found = recorded(self.copy)
        places = {"results": self.results, "beside": self.copy.parent}
        kept = [folder / file for name, folder in places.items() for file in found.get(name, ())]
        return found.get("stamp") == self.stamp and all(path.exists() for path in kept)


def build_notebooks(
    only: Iterable[str] = (),
    force: bool = False,
    parameters: Mapping[str, Any] | None = None,
    output: Path = COPIES,
    sources: Path = NOTEBOOKS,
    results: Path | None = None,
    inputs: Iterable[Path] | str = INPUTS,
    progress: bool = True,
    side_by_side: int = 1,
) -> Built:
    """Execute the notebooks whose sources, parameters or inputs changed since their copies were made.

    A notebook that fails leaves its former copy and records as they were, and the others still run.

    Args:
        only: names of notebooks, or beginnings of names (`01`); () for all.
        force: execute also what is unchanged.
        parameters: applied to every notebook that declares them.
        output: folder of the executed copies.
        sources: folder of the notebooks.
        results: folder of records and numbers; by default `$MECHANISM_RESULTS` or `data/results`, and with parameters
            `results` inside the output folder, so that the committed records stay those of the defaults.
        inputs: files and folders that every notebook depends on, or their hash (see `tree_hash`).
        progress: show progress on the terminal.
        side_by_side: notebooks executed at once, each in a process of its own with its part of the threads.

    Raises:
        BuildError: no such notebook or parameter, or a value of another type than declared, before anything runs; or
            notebooks failed, after all have run.
    """
    jobs = _jobs(only, parameters, output, sources, results, inputs)
    todo = [job for job in jobs if force or not job.fresh]
    built = Built(skipped=[job.name for job in jobs if job not in todo])
    given = {name: value for job in jobs for name, value in job.parameters.items()}
    for job, failure, seconds in _done(todo, _environment(given), progress, min(side_by_side, len(todo)), output):
        built.seconds[job.name] = seconds
        if failure:
            sys.stderr.write(f"{job.name} failed\n" if progress else "")
            built.failures.append(failure)
        else:
            built.executed.append(job.name)
            note_time(job.name, seconds, output)
    built.executed.sort()
    built.failures.sort(key=lambda failure: failure.notebook)
    if built.failures:
        raise BuildError(_failure_report(built), built)
    return built


def _done(
    todo: Sequence[_Job], environment: Mapping[str, str | None], progress: bool, processes: int, output: Path
) -> Iterator[tuple[_Job, CellFailure | None, float]]:
    """Each notebook as it ends, with its failure and its seconds. Side by side, those that took longest the last time
    begin first, and one bar counts notebooks in place of one that counts cells."""
    if processes <= 1:
        yield from (_timed(job, environment, progress) for job in todo)
        return
    took = read_times(output)
    longest = sorted(todo, key=lambda job: -took.get(job.name, {}).get("seconds", math.inf))
    # loky gives each process its part of the threads, unless OMP_NUM_THREADS says otherwise.
    run = Parallel(processes, backend="loky", batch_size=1, pre_dispatch=processes, return_as="generator_unordered")
    ended = run(delayed(_timed)(job, environment, False) for job in longest)
    with tqdm(ended, "notebooks", len(todo), disable=not progress) as bar:
        for job, failure, seconds in bar:
            bar.set_postfix_str(f"{job.name} {seconds:.0f} s")
            yield job, failure, seconds


def _timed(job: _Job, environment: Mapping[str, str | None], progress: bool) -> tuple[_Job, CellFailure | None, float]:
    start = time.monotonic()
    with variables(**environment):
        failure = _run(job, progress)
    return job, failure, time.monotonic() - start


def stale(only: Iterable[str] = (), parameters: Mapping[str, Any] | None = None, **where: Any) -> list[str]:
    """Names of the notebooks that `build_notebooks` would execute; arguments as there.

    Raises:
        BuildError: no such notebook or parameter.
    """
    return [job.name for job in _jobs(only, parameters, **where) if not job.fresh]


def note_time(name: str, seconds: float, output: Path) -> None:
    """Keep the seconds that a notebook took, and the processor that it ran on."""
    kept = read_times(output) | {name: {"seconds": round(seconds, 1), "machine": cpu_name()}}
    write_atomic(output / TIMINGS, json.dumps(kept, indent=1, sort_keys=True) + "\n")


def read_times(output: Path) -> dict[str, dict[str, Any]]:
    """`seconds` and `machine` by notebook; empty where nothing was noted."""
    path = output / TIMINGS
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _jobs(
    only: Iterable[str],
    parameters: Mapping[str, Any] | None,
    output: Path = COPIES,
    sources: Path = NOTEBOOKS,
    results: Path | None = None,
    inputs: Iterable[Path] | str = INPUTS,
) -> list[_Job]:
    given = dict(parameters or {})
    results = own_results(output) if results is None and given else results_folder(results)
    paths = select(sources, [name.removesuffix(".ipynb") for name in only])
    read = {path: _read(path) for path in paths}
    declared = {path: declared_parameters(path) for path in paths}
    _refuse_unknown(given, declared)
    hashed = inputs if isinstance(inputs, str) else tree_hash(inputs)
    jobs = []
    for path, notebook in read.items():
        known = declared[path]
        taken = {name: _taken(name, value, known[name]) for name, value in given.items() if name in known}
        jobs.append(_Job(path, output / path.name, results, taken, stamp(notebook, taken, hashed)))
    return jobs


def _taken(name: str, value: Any, declared: Mapping[str, Any]) -> Any:
    try:
        return _absolute(typed(name, value, declared))
    except ValueError as error:
        raise BuildError(str(error)) from None


def _read(path: Path) -> NotebookNode:
    try:
        return read_notebook(path)
    except ValueError as error:
        raise BuildError(f"{error}; restore it from version control") from None


def select(sources: Path, only: Sequence[str] = ()) -> list[Path]:
    """Notebooks of a folder whose names begin with one of `only`; all without any.

    Raises:
        BuildError: there is none, or none of a name.
    """
    paths = sorted(sources.glob("*.ipynb"))
    if not paths:
        raise BuildError(absent(f"notebooks in {sources.name}/", "restore them from version control"))
    for name in only:
        if not any(path.stem.startswith(name) for path in paths):
            raise BuildError(f"no notebook {name!r}: there are {', '.join(path.stem for path in paths)}")
    return [path for path in paths if not only or path.stem.startswith(tuple(only))]


def _refuse_unknown(given: Mapping[str, Any], declared: Mapping[Path, Iterable[str]]) -> None:
    known = sorted({name for names in declared.values() for name in names})
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise BuildError(f"unknown parameter {name!r}{hint}: known are {', '.join(known) or 'none'}")


def _run(job: _Job, progress: bool) -> CellFailure | None:
    """Execute a notebook aside, and publish its copy and its records when it succeeds."""
    with (
        tempfile.TemporaryDirectory(prefix="mechanism-") as folder,
        variables(MECHANISM_RESULTS=folder, MECHANISM_NOTEBOOK=job.name),
    ):
        executed = execute(job.source, job.parameters, progress)
        if isinstance(executed, CellFailure):
            if executed.executed is not None:
                failed = job.copy.parent.parent / FAILED / job.copy.name
                write_atomic(failed, nbformat.writes(executed.executed) + "\n")
            return executed
        _publish(job, executed, Path(folder))
    return None


def _publish(job: _Job, executed: NotebookNode, made: Path) -> None:
    files = sorted(path.relative_to(made).as_posix() for path in made.rglob("*.json"))
    for file in files:
        keep(job.results / file, (made / file).read_text("utf-8"))
    for file in set(recorded(job.copy).get("results", ())) - set(files):
        (job.results / file).unlink(missing_ok=True)
    beside = sorted(made.glob("*.js"))  # data that the page loads
    for path in beside:
        write_atomic(job.copy.parent / path.name, path.read_text("utf-8"))
    copy = normalise(executed)
    noted = {"stamp": job.stamp, "parameters": dict(job.parameters), "results": files}
    copy.metadata[KEY] = noted | ({"beside": [path.name for path in beside]} if beside else {})
    write_atomic(job.copy, nbformat.writes(copy) + "\n")


def own_results(output: Path) -> Path:
    """Folder of the records of notebooks that ran with parameters, beside their copies."""
    return output / "results"


def _absolute(value: Any) -> Any:
    """A relative path, or those in a list, made absolute, since notebooks run in their own folder; else as it is."""
    if isinstance(value, list | tuple):
        return [_absolute(one) for one in value]
    if isinstance(value, str) and os.sep in value and Path(value).exists():
        return str(Path(value).resolve())
    return value


def _names_hub(given: Mapping[str, Any]) -> bool:
    """Whether the parameters name a model or data on a hub: `owner/name` that is no path here, or `hub:NAME`."""
    model, data = str(given.get("model", "")), given.get("data") or ()
    from_hub = any(str(one).startswith("hub:") for one in (data if isinstance(data, list | tuple) else [data]))
    return (model.count("/") == 1 and not Path(model).exists()) or from_hub


@contextmanager
def variables(**values: str | None) -> Iterator[None]:
    """Environment variables for a while; None unsets one."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _set(values)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _environment(given: Mapping[str, Any]) -> dict[str, str | None]:
    """The environment of kernels: offline unless the user named something on a hub, and repeatable."""
    unset = dict.fromkeys(("MPLBACKEND", "JPY_SESSION_NAME"))
    fixed = {"TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore:IProgress"}
    return {**unset, **fixed, **KEEP_MEMORY, **({} if _names_hub(given) else {"HF_HUB_OFFLINE": "1"})}


def _failure_report(built: Built) -> str:
    total = len(built.executed) + len(built.failures)
    head = f"{len(built.failures)} of {total} executed notebooks failed; their former copies and the others were kept."
    return "\n\n".join([head, *map(str, built.failures)])
