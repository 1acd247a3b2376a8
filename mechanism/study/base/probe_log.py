"""What a training run shows and keeps on its way: a bar, statistics at its probes, every tenth row of its metrics."""

from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import xarray as xr
from rich.console import Console
from rich.progress import Progress, TextColumn
from transformers import PreTrainedModel

from ...nn.training import Trainer


def shown(trainer: Trainer, console: Console, steps: int | None, transient: bool = False) -> None:
    """`Trainer.run`, with a bar on the console, a transient one only while it goes on."""
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, transient=transient) as progress:
        bar = progress.add_task("training", total=trainer.config.steps, completed=trainer.step, told="")

        def show(row: dict) -> None:
            rate = trainer.config.step_tokens / max(row["seconds"], 1e-3)
            progress.update(bar, completed=row["step"], told=f"loss {row['loss']:.3f}  {rate:,.0f} tokens/s")

        trainer.run(show, stop_after=steps)


class ProbeLog:
    """Callable for the trainer: keeps what a probe finds as netCDF in a folder, once for each number of tokens.

    Args:
        folder: made if it is not there; probe: statistics of a model.
    """

    def __init__(self, folder: Path, probe: Callable[[PreTrainedModel], xr.Dataset]) -> None:
        self.folder, self.probe = Path(folder), probe
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, model: PreTrainedModel, tokens: int) -> None:
        path = probe_path(self.folder, tokens)
        if not path.exists():
            write_stats(self.probe(model).assign_coords(tokens_seen=tokens), path)


def probe_path(folder: Path, tokens: int) -> Path:
    """File of the probe after so many tokens."""
    return folder / f"{tokens:012d}.nc"


def write_stats(stats: xr.Dataset, path: Path, packed: Iterable[str] = ()) -> None:
    """Write statistics as compressed netCDF, numbers as float32, whole or not at all.

    Args:
        packed: variables within [0, 8] that are kept as whole numbers of 1 / 4000.
    """
    plain = {"zlib": True, "complevel": 9, "dtype": "float32"}
    encoding: dict[str, dict] = {str(name): dict(plain) for name in stats.data_vars}
    for name in packed:
        encoding[name] |= {"dtype": "int16", "scale_factor": 1 / 4000, "_FillValue": -1}
    stats.to_netcdf(path.with_suffix(".tmp"), encoding=encoding)
    path.with_suffix(".tmp").replace(path)


def join_probes(folder: Path, until: int | None = None) -> xr.Dataset:
    """The probes of a folder as one dataset over `tokens_seen`, up to and including `until` tokens; what no probe
    changes has no such axis."""
    kept = [path for path in sorted(folder.glob("*.nc")) if until is None or int(path.stem) <= until]
    return xr.concat([xr.load_dataset(path) for path in kept], "tokens_seen", coords="minimal", compat="override")


def thin(metrics: pd.DataFrame) -> pd.DataFrame:
    """Metrics as a record keeps them: every tenth step and the last. Thinned metrics stay as they are, but for the last
    row of an earlier part of the run."""
    return metrics[(metrics["step"] % 10 == 0) | (metrics["step"] == metrics["step"].max())]
