"""`mechanism sweep`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import Json, err, out, print_table


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
    from ..study.base.runs import cache_folder
    from ..study.d_domains.shards import Engine
    from ..study.d_domains.sweep import SweepOptions
    from ..study.d_domains.sweep_run import run_sweep
    from ..study.d_domains.sweep_text import SweepConfig
    from ..study.embedded.train import keep_memory

    numbers = {"max_segments": max_segments, "max_tokens": max_tokens, "seed": seed}
    config = SweepConfig.parse(data, languages, modes, split=split, **numbers)
    where = Engine(engine, jobs, address), layer_shards, memory  # type: ignore[arg-type]
    keep_memory()
    options = SweepOptions(*where, folder=cache_folder() / "sweeps", source=(model, device, dtype))
    found, place = run_sweep(config, options, to, " ".join(["mechanism", *sys.argv[1:]]), err)
    if json_:
        out.print_json(found.ranking().to_json(orient="records"))
    else:
        print_table(found.ranking().round(5).to_dict("records"), f"driver experts of {model}, nats per token")
        out.print(f"{place}; {found.found.attrs['failed']} ablations failed", soft_wrap=True)
