"""`mechanism sweep`."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import Json, err, out, print_frame, say

ENGINES = {"local": (), "dask": ("distributed",), "ray": ("ray", "ray.util.joblib")}


def sweep(
    model: Annotated[str, typer.Argument(help="A committed model's name, a folder, or a hub id.")],
    data: Annotated[
        str | None, typer.Option(help="Corpora, separated by commas: names, folders, tables, hub:NAME.")
    ] = None,
    languages: Annotated[str | None, typer.Option(help="Codes, separated by commas; all by default.")] = None,
    max_segments: Annotated[int, typer.Option(help="Cap per domain and language.")] = 24,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a segment; the rest is cut off.")] = 128,
    modes: Annotated[str, typer.Option(help="Of ablation, separated by commas.")] = "zero,reroute,mean",
    split: Annotated[str, typer.Option(help="test, dev or train")] = "test",
    seed: int = 0,
    engine: Annotated[str, typer.Option(help="local, dask or ray")] = "local",
    jobs: Annotated[int, typer.Option(help="Processes of the local engine.")] = 1,
    address: Annotated[str | None, typer.Option(help="Of the engine's scheduler; else one is started here.")] = None,
    layer_shards: Annotated[int, typer.Option(help="Ranges of layers that each batch is cut into.")] = 1,
    memory: Annotated[float, typer.Option(help="Gigabytes a process may use beside the weights.")] = 1.0,
    to: Annotated[Path | None, typer.Option(help="A netCDF file; a record in data/runs by default.")] = None,
    device: str = "auto",
    dtype: str = "float32",
    json_: Json = False,
) -> None:
    """Ablate every expert of a model and record what it does to the output, by segment, domain and language.

    Finished shards are kept, so that the same command goes on where it was interrupted."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

    from ..models.allocator import keep_memory
    from ..models.load import load_model
    from ..study.base.runs import cache_folder
    from ..study.d_domains import sweep as sweeps
    from ..study.d_domains import swept_text
    from ..study.d_domains.domain_text import SweepConfig

    numbers = {"max_segments": max_segments, "max_tokens": max_tokens, "seed": seed}
    config = SweepConfig.parse(data, languages, modes, split=split, **numbers)
    source = None if (engine, jobs) == ("local", 1) else (model, device, dtype)
    options = sweeps.SweepOptions(layer_shards, memory, folder=cache_folder() / "sweeps", source=source)
    keep_memory()
    columns = BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn()
    with workers(engine, jobs, address), Progress(*columns, console=err) as bar:
        loaded = load_model(model, device, dtype, moe=True)
        how: dict[str, Any] = {
            "options": options,
            "say": say,
            "progress": lambda done, total: bar.update(
                (bar.task_ids or [bar.add_task("shards")])[0], completed=done, total=total
            ),
        }
        if to is None:
            command = " ".join(["mechanism", *sys.argv[1:]])
            found = sweeps.study(*loaded, model, dtype, "full", config, command=command, **how)
            text = swept_text.study(*loaded, found, model, dtype, "full")
            place = f"recorded in data/runs/{found.found.attrs['record']} and {text.attrs['record']}"
        else:
            found = sweeps.sweep(*loaded, config, **how)
            found.found.to_netcdf(to)
            place = f"written to {to}"
    print_frame(found.drivers(), json_, f"driver experts of {model}, nats per token", 5)
    if not json_:
        out.print(f"{place}; {found.found.attrs['failed']} ablations failed", soft_wrap=True)


@contextmanager
def workers(engine: str, jobs: int = 1, address: str | None = None) -> Iterator[None]:
    """Where shards run, as long as the block lasts: so many `local` processes, or an engine's own number of them.

    Args:
        engine: `local`, `dask` (needs the extra `dask`) or `ray` (the extra `ray`).
        address: of a running scheduler; without it one is started on this machine.

    Raises:
        ValueError: an unknown engine or one that is not installed, or less than one process.
    """
    import joblib

    if engine not in ENGINES:
        raise ValueError(f"no engine {engine!r}; there are {', '.join(ENGINES)}")
    if jobs < 1:
        raise ValueError(f"{jobs} processes are too few")
    try:
        modules = [importlib.import_module(name) for name in ENGINES[engine]]
    except ImportError as error:
        raise ValueError(f"engine {engine} is not installed ({error}): pip install 'mechanism[{engine}]'") from error
    if engine == "dask":
        with modules[0].Client(address) as client, joblib.parallel_config("dask", client=client):
            yield
    elif engine == "ray":
        modules[0].init(address=address, ignore_reinit_error=True)
        modules[1].register_ray()
        with joblib.parallel_config("ray"):
            yield
    else:
        with joblib.parallel_config("loky" if jobs > 1 else "sequential", n_jobs=jobs):
            yield
