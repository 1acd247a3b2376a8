"""Making the runs of the cross-lingual grid one by one, their records, and the table of what is done."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from rich.console import Console
from rich.progress import Progress, TextColumn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus.language_stream import UNTOLD, LanguageStream
from ...corpus.tokenizer import load_tokenizer
from ...nn.checkpoint import dump_json
from ...nn.distil import Distillation, copy_frame, distil
from ...nn.feedforward import DenseConfig
from ...nn.language import listeners
from ...nn.training import Trainer
from ...nn.variants import VariantConfig
from ..base.runs import TOKENIZER
from ..embedded.probes import probe_path, write_stats
from ..embedded.stage import thin
from ..grid.recorded_run import RESULT, left_in_words, make_all
from .extra import EXTRA_MEASURES
from .grid import PARENT, CrossGrid
from .run import USE, CrossRun
from .score import bits_table, macro_loss, use_of_experts

DISTIL_STEP = 10**9  # a step of the stream that no run reaches: its batches are what experts are fitted on


def train_cross_grid(grid: CrossGrid, console: Console, runs: int | None = None, steps: int | None = None) -> None:
    """Make the missing runs of a grid, or go on where the last one stopped. Several processes share the runs.

    Args:
        runs: stop after so many; steps: stop each run after so many steps and end with it.

    Raises:
        TrainingError: see `Trainer.run`.
        KeyboardInterrupt: after a checkpoint.
    """
    tokenizer = load_tokenizer(TOKENIZER)

    def make(run: CrossRun) -> bool:
        console.print(f"{run.name} {run.hash}: {told(grid)}")
        return make_run(grid, run, tokenizer, console, steps)

    make_all(grid.missing_runs, make, runs)
    if not any(grid.missing_runs()):
        for at in grid.order():  # weights that other runs began from are needed no more
            if (run := grid.run(*at)) is not None:
                shutil.rmtree(run.workspace, ignore_errors=True)


def make_run(
    grid: CrossGrid, run: CrossRun, tokenizer: PreTrainedTokenizerFast, console: Console, steps: int | None = None
) -> bool:
    """Train one run to its end, or for so many steps, and write its record at the end; whether it was reached."""
    trainer = cross_trainer(grid, run, tokenizer)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("training", total=run.train.steps, completed=trainer.step, told="")
        trainer.run(
            lambda row: progress.update(bar, completed=row["step"], told=f"loss {row['loss']:.3f}"), stop_after=steps
        )
    if trainer.step < run.train.steps:
        return False
    result = write_cross_record(run, trainer, tokenizer)
    if run.cell != PARENT:
        shutil.rmtree(run.workspace)
    console.print(f"  {run.train.steps} steps of {result['step_seconds']:.3f} s, test loss {result['test']:.4f}")
    return True


def cross_trainer(grid: CrossGrid, run: CrossRun, tokenizer: PreTrainedTokenizerFast) -> Trainer:
    """The run's trainer at its newest checkpoint; at the start, with what it takes over from its dense twin."""
    stream, config = LanguageStream(run.stream, tokenizer), run.train
    listens = not isinstance(_variant(run).layer, DenseConfig)

    def batches(step: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Those of the run's own steps: a parent of the same seed has read those before `begins`."""
        ids, lang = stream.told_batch(config.seed, run.begins + step, config.batch, config.length)
        return (ids, lang) if listens else ids

    trainer = Trainer(config, batches, run.workspace, UseLog(run, tokenizer) if listens else _no_probe)
    if run.start and trainer.step == 0:
        parent = grid.run(PARENT, config.seed)
        assert parent is not None
        with parent.lock:
            dense = cross_trainer(grid, parent, tokenizer)
            dense.run()  # ends at once where the twin's weights are there
        ids = torch.as_tensor(batches(DISTIL_STEP)[0], dtype=torch.long)
        _take_over(run.start, trainer.model, dense.model.eval(), ids, config.seed)
    return trainer


def _take_over(start: str, model: PreTrainedModel, dense: PreTrainedModel, ids: torch.Tensor, seed: int) -> None:
    if start == "copied":
        copy_frame(model, dense)
    else:
        distil(model, dense, ids, Distillation(seed=seed))


def _no_probe(model: PreTrainedModel, tokens: int) -> None:
    """A dense model uses no experts."""


def _variant(run: CrossRun) -> VariantConfig:
    assert isinstance(run.train.model, VariantConfig)
    return run.train.model


def told_ids(run: CrossRun) -> list[int]:
    """The language id of each of the run's languages, as it is told."""
    codes = run.stream.languages
    return list(range(len(codes))) if run.stream.told else [UNTOLD] * len(codes)


class UseLog:
    """Callable for the trainer: keeps the use of experts by language on dev text at each probe."""

    def __init__(self, run: CrossRun, tokenizer: PreTrainedTokenizerFast) -> None:
        self.run, self.tokenizer = run, tokenizer
        self.folder = run.workspace / "probes"
        self.folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, model: PreTrainedModel, tokens: int) -> None:
        path = probe_path(self.folder, tokens)
        if not path.exists():
            codes = self.run.stream.languages
            use = use_of_experts(model, self.tokenizer, codes, told_ids(self.run), "dev", self.run.held.routed)
            write_stats(use.to_dataset(name="dev").assign_coords(tokens_seen=tokens), path)


def write_cross_record(run: CrossRun, trainer: Trainer, tokenizer: PreTrainedTokenizerFast) -> dict:
    """Write the record of a finished run: `config.json`, `metrics.csv`, `bits.csv` (dev and test documents), `use.nc`,
    what `then` names, and `result.json`, last; returns the result."""
    run.record.mkdir(parents=True, exist_ok=True)
    dump_json(run.record / "config.json", asdict(run))
    metrics = pd.read_csv(run.workspace / "metrics.csv")
    thin(metrics).to_csv(run.record / "metrics.csv", index=False)
    model, codes, told = trainer.model.eval(), run.stream.languages, told_ids(run)
    tables = {split: bits_table(model, tokenizer, codes, told, split, run.held.segments) for split in ("dev", "test")}
    joined = pd.concat([table.assign(split=split) for split, table in tables.items()])
    joined.to_csv(run.record / "bits.csv", index=False)
    if listeners(model):
        _write_use(run, model, tokenizer)
    result: dict[str, Any] = {split: round(macro_loss(table), 5) for split, table in tables.items()}
    result |= {
        "parameters": _variant(run).parameters(), "active_parameters": _variant(run).active_parameters(),
        "feed_forward": sum(p.numel() for n, p in model.named_parameters() if ".mlp." in n),
        "shares": LanguageStream(run.stream, tokenizer).language_shares,
        "step_seconds": round(float(metrics["seconds"].median()), 4), "threads": torch.get_num_threads(),
        "seconds": round(float(metrics["seconds"].sum()), 1), "torch": torch.__version__.split("+")[0],
        **trainer.made_on(),
    }  # fmt: skip
    for name in run.then:
        result |= EXTRA_MEASURES[name](run, trainer, tokenizer)
    dump_json(run.record / RESULT, result)
    return result


def _write_use(run: CrossRun, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    paths: Sequence[Path] = sorted((run.workspace / "probes").glob("*.nc"))
    along = xr.concat([xr.load_dataset(path) for path in paths], "tokens_seen", coords="minimal", compat="override")
    codes = run.stream.languages
    test = use_of_experts(model, tokenizer, codes, told_ids(run), "test", run.held.segments).drop_vars("tokens")
    write_stats(along.assign(test=test), run.record / USE)


def cross_status(grid: CrossGrid) -> pd.DataFrame:
    """A row per cell: `runs` made of those wanted, mean `test` loss of those made, and `step`, seconds of a step."""
    rows = []
    for name, cell in grid.cells.items():
        results = [run.result() for run in grid.runs(name) if run.done]
        row: dict[str, Any] = {"cell": name, "runs": f"{len(results)} of {cell.seeds or grid.seeds}"}
        for key, digits in (("test", 4), ("step_seconds", 3)):
            row[key] = f"{np.mean([r[key] for r in results]):.{digits}f}" if results else None
        rows.append(row)
    return pd.DataFrame(rows)


def remaining(grid: CrossGrid) -> tuple[int, float | None]:
    """Runs that are missing, and the seconds of their training by those that are there; None before the first."""
    share, seconds, left, missing = 0.0, 0.0, 0.0, 0
    for name, seed in grid.order():
        run, tokens = grid.run(name, seed), grid.cells[name].tokens
        if run is not None and run.done:
            share, seconds = share + tokens, seconds + run.result()["seconds"]
        else:
            left, missing = left + tokens, missing + 1
    return missing, seconds / share * left if share else None


def told(grid: CrossGrid) -> str:
    """One sentence: what is left."""
    return left_in_words(grid.size(), *remaining(grid))
