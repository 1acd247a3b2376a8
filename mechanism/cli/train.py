"""`mechanism train`."""

from typing import Annotated

import typer

from .console import Config, err, out, print_table


def train(
    config: Config | None = None,
    steps: Annotated[int | None, typer.Option(help="Stop after this many steps; the run can go on later.")] = None,
    branch: Annotated[
        str | None, typer.Option(help="Begin at the checkpoint of this longer run of the same seed.")
    ] = None,
    export: Annotated[
        str | None, typer.Option(help="Write the weights to data/models/NAME; its card says if the run was finished.")
    ] = None,
    stage: Annotated[
        bool,
        typer.Option(
            "--stage",
            help="Do not train: write the newest checkpoint's weights and the record so far to data/runs/HASH, where a "
            "run without checkpoints goes on from.",
        ),
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Instead of one configuration: the missing runs of this grid, one after another. Processes that are "
            "started beside each other share them: small models train faster on a core each (OMP_NUM_THREADS=1)."
        ),
    ] = None,
    runs: Annotated[int | None, typer.Option(help="With --grid: stop after this many runs.")] = None,
    status: Annotated[bool, typer.Option("--status", help="With --grid: do not train, show what is done.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; several processes can share a GPU.")] = "cpu",
) -> None:
    """Train a model of the report, or go on where it stopped; writes the record to data/runs/HASH, and of the runs of a
    grid to data/runs/GRID/HASH."""
    if (config is None) == (grid is None):
        raise ValueError("name a run with --config or a grid with --grid; not both")
    _choose(device)
    if grid:
        if branch or export or stage:
            raise ValueError("a grid has no --branch, --export or --stage: its runs are short and keep no weights")
        _train_grid(grid, runs, steps, status)
    elif runs or status:
        raise ValueError("--runs and --status belong to --grid")
    else:
        _train_run(str(config), steps, branch, export, stage)


def _choose(device: str) -> None:
    if device != "cpu":
        from ..models.load import parse_device
        from ..nn.training import DEVICE

        DEVICE.set(parse_device(device))


def _train_grid(name: str, runs: int | None, steps: int | None, status: bool) -> None:
    from ..models.allocator import keep_memory

    if not status:
        keep_memory()

    from ..study.grids import load_grid

    found = load_grid(name)
    if not status:
        found.make(err, runs, steps)
    print_table(found.status().to_dict("records"), f"grid {found.name}")
    out.print(found.summary())


def _train_run(config: str, steps: int | None, branch: str | None, export: str | None, stage: bool) -> None:
    from ..models.allocator import keep_memory

    if stage and (steps or branch or export):
        raise ValueError("--stage does not train: leave out --steps, --branch and --export")
    if not stage:
        keep_memory()

    from ..study.base.runs import find_run
    from ..study.embedded import train as embedded

    run = find_run(config)
    if stage:
        path = embedded.stage(run)
        err.print(f"stage of {path.stat().st_size / 1e6:.0f} MB in {path}", soft_wrap=True)
        return
    if branch:
        err.print(f"branching at step {embedded.branch(run, find_run(branch))}")
    embedded.run_training(run, steps, export, err)
