"""A sweep from the command line: loaded, told, shown while it runs, recorded."""

from pathlib import Path

import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

from ...models.load import load_model
from .driver_experts import Swept, analyse, stored_sweep
from .sweep import SweepOptions
from .sweep_text import SweepConfig


def run_sweep(
    config: SweepConfig, options: SweepOptions, to: Path | None, command: str, console: Console
) -> tuple[Swept, str]:
    """Sweep the model that the options name, with a bar that says how long is left.

    Args:
        to: a netCDF file; without it, a record in `data/runs`, which is read if it is there.
        command: what makes the record again.

    Returns:
        The sweep, and where it is, in words.
    """
    assert options.source is not None
    spec, device, dtype = options.source
    model, tokenizer = load_model(spec, device, dtype, moe=True)

    def compute() -> xr.Dataset:
        columns = BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn()
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("shards")
            return analyse(
                model,
                tokenizer,
                config,
                options,
                say=lambda line: console.print(line, style="dim", markup=False, soft_wrap=True),
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )

    if to is None:
        found = stored_sweep(spec, config, dtype, compute, command)
        return Swept(found, seed=config.seed), f"recorded in data/runs/{found.attrs['record']}"
    found = compute()
    found.to_netcdf(to)
    return Swept(found, seed=config.seed), f"written to {to}"
