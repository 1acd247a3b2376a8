"""The commands `mechanism sweep` and `mechanism bench sweep`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def bench_sweep(
    model: Annotated[str, typer.Argument(help="A committed model's name, a folder, or a hub id.")] = "embedded",
    max_segments: Annotated[int, typer.Option(help="Cap per domain and language.")] = 24,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a segment; the rest is cut off.")] = 40,
    batches: Annotated[int, typer.Option(help="Batches ablated both ways.")] = 1,
    search: Annotated[bool, typer.Option(help="Sweep all texts exactly and race.")] = True,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Time of ablating every expert by restarts and by whole passes, how much they differ, and recall and cost of the
    race for the driver experts against the exact sweep.

    A case's ratio is of whole passes to restarts; the last one is of zero ablation."""
    from .cli import _print_bench, err
    from .study import bench_sweep as bench
    from .study.embedded import keep_memory
    from .study.models import load_model
    from .study.sweep_text import SweepConfig

    keep_memory()
    config = SweepConfig(max_segments=max_segments, max_tokens=max_tokens)
    loaded, tokenizer = load_model(model, "cpu", "float32", moe=True)
    found = bench.bench_sweep(
        loaded, tokenizer, config, batches, search=search, say=lambda line: err.print(line, style="dim", soft_wrap=True)
    )
    _print_bench(found, json_, "seconds for all experts, one batch")


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
    json_: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Ablate every expert of a model and record what it does to the output, by segment, domain and language.

    Finished shards are kept, so that the same command goes on where it was interrupted."""
    from .cli import _print_table, err, out
    from .study.embedded import cache_folder, keep_memory
    from .study.shards import Engine
    from .study.sweep import SweepOptions
    from .study.sweep_run import run_sweep
    from .study.sweep_text import SweepConfig

    keep_memory()
    numbers = {"max_segments": max_segments, "max_tokens": max_tokens, "seed": seed}
    config = SweepConfig.parse(data, languages, modes, split=split, **numbers)
    where = Engine(engine, jobs, address), layer_shards, memory  # type: ignore[arg-type]
    options = SweepOptions(*where, folder=cache_folder() / "sweeps", source=(model, device, dtype))
    found, place = run_sweep(config, options, to, " ".join(["mechanism", *sys.argv[1:]]), err)
    if json_:
        out.print_json(found.ranking().to_json(orient="records"))
    else:
        _print_table(found.ranking().round(5).to_dict("records"), f"driver experts of {model}, nats per token")
        out.print(f"{place}; {found.found.attrs['failed']} ablations failed", soft_wrap=True)
