"""Training the runs of a grid one by one, their records, and the table of what is done."""

import shutil
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from transformers import PreTrainedModel

from ...corpus.tokenizer import load_tokenizer
from ...nn.checkpoint import TrainingError, dump_json
from ...nn.errors import LayerError
from ...nn.feedforward import DenseConfig
from ...nn.training import Trainer
from ...nn.variants import VariantConfig
from ...trace import RoutingStats
from ..base.runs import TOKENIZER
from ..embedded.stage import thin
from ..grid.english import CORPORA, English, Score, score
from ..grid.recorded_run import RESULT, left_in_words, make_all
from .grid import Grid, GridRun

ALONG = "along"


def train_grid(grid: Grid, console: Console, runs: int | None = None, steps: int | None = None) -> None:
    """Make the missing runs of a grid, or go on where the last one stopped. Several processes share the runs.

    Args:
        runs: stop after so many; steps: stop each run after so many steps and end with it.

    Raises:
        TrainingError: see `Trainer.run`; a vocabulary that is too small for the text.
        KeyboardInterrupt: after a checkpoint.
    """
    if not any(grid.missing_runs()):
        console.print(summary(grid))
        return
    english = English(grid.text, load_tokenizer(TOKENIZER))
    if len(english.vocabulary) > grid.vocab:
        raise TrainingError(f"the text has {len(english.vocabulary)} kinds of tokens, the grid's vocab is {grid.vocab}")

    def make(run: GridRun) -> bool:
        console.print(f"{run.name} {run.hash}: {summary(grid)}")
        return make_run(run, english, console, steps)

    make_all(grid.missing_runs, make, runs)


def make_run(run: GridRun, english: English, console: Console, steps: int | None = None) -> bool:
    """Train one run to its end, or for so many steps, and write its record at the end; whether it was reached. A run
    that diverges ends there: its record says so, and comparisons leave it out.

    Raises:
        TrainingError, KeyboardInterrupt: see `train_grid`.
    """
    trainer = english.trainer(run.train, run.workspace)
    trainer.probe = partial(_score_along, run, english)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("training", total=run.train.steps, completed=trainer.step, told="")
        try:
            trainer.run(
                lambda row: progress.update(bar, completed=row["step"], told=f"loss {row['loss']:.3f}"),
                stop_after=steps,
            )
        except (TrainingError, LayerError) as error:
            if isinstance(error.__cause__, OSError):
                raise
            _write_diverged(run, str(error))
            return True
    if trainer.step < run.train.steps:
        return False
    result = write_record(run, trainer, english)
    shutil.rmtree(run.workspace)
    console.print(f"  {run.train.steps} steps of {result['step_seconds']:.3f} s, dev loss {result['dev']['loss']:.4f}")
    return True


def _score_along(run: GridRun, english: English, model: PreTrainedModel, tokens: int) -> None:
    """Score the test text between start and end of a run whose configuration has probes."""
    path = run.workspace / ALONG / f"{tokens:012d}.csv"
    if 0 < tokens < run.train.steps * run.train.step_tokens and not run.tuning and not path.exists():
        path.parent.mkdir(exist_ok=True)
        document_table(score(model, english.windows["test"])).assign(seen=tokens).to_csv(path, index=False)


def write_record(run: GridRun, trainer: Trainer, english: English) -> dict[str, Any]:
    """Write `config.json`, `metrics.csv` (every tenth step) and `result.json`, and of a run that does not tune
    `test.csv` (loss by document), `along.csv` (the same at the probes, after `seen` tokens) and the selections of each
    expert by corpus; returns the result, written last."""
    run.record.mkdir(parents=True, exist_ok=True)
    _write_config(run)
    metrics = pd.read_csv(run.workspace / "metrics.csv")
    thin(metrics).to_csv(run.record / "metrics.csv", index=False)
    result: dict[str, Any] = {"seconds": round(float(metrics["seconds"].sum()), 1), "threads": torch.get_num_threads()}
    result |= {"step_seconds": round(float(metrics["seconds"].median()), 4), "torch": torch.__version__.split("+")[0]}
    result |= trainer.made_on()
    if along := sorted((run.workspace / ALONG).glob("*.csv")):
        pd.concat(map(pd.read_csv, along)).to_csv(run.record / f"{ALONG}.csv", index=False)
    result["dev"] = _totals(score(trainer.model, english.windows["dev"]))
    if not run.tuning:
        result |= _test(run, trainer, english)
    dump_json(run.record / RESULT, result)
    return result


def _write_diverged(run: GridRun, why: str) -> None:
    run.record.mkdir(parents=True, exist_ok=True)
    _write_config(run)
    dump_json(run.record / RESULT, {"diverged": why, "dev": {"loss": None}, "step_seconds": None})
    shutil.rmtree(run.workspace)


def _write_config(run: GridRun) -> None:
    identity = {"grid": run.grid, "block": run.block, "variant": run.variant, "tuning": run.tuning}
    config = {"train": asdict(run.train), "text": asdict(run.text), "data": run.data}
    dump_json(run.record / "config.json", identity | config)


def _test(run: GridRun, trainer: Trainer, english: English) -> dict[str, Any]:
    model = run.train.model
    assert isinstance(model, VariantConfig)
    stats = None if isinstance(model.layer, DenseConfig) else RoutingStats(groups=CORPORA)
    found = score(trainer.model, english.windows["test"], stats)
    document_table(found).to_csv(run.record / "test.csv", index=False)
    facts: dict[str, Any] = {
        "parameters": model.parameters(), "active_parameters": model.active_parameters(),
        "flops": sum(part.flops for part in model.parts(run.train.length).values()),
        "test": _totals(found),
    }  # fmt: skip
    if stats is not None:
        facts["layers"] = list(stats.layers)
        facts["selections"] = dict(zip(stats.groups, stats.sums["selections"][0].tolist(), strict=True))
    return facts


def _totals(found: Score) -> dict[str, float]:
    return {"loss": round(found.loss, 6), "tokens": int(found.tokens.sum())}


def document_table(found: Score) -> pd.DataFrame:
    """A score as rows of `corpus`, `document`, `tokens`, `nll`."""
    corpora, names = zip(*found.documents, strict=True)
    return pd.DataFrame(
        {"corpus": corpora, "document": names, "tokens": found.tokens.astype(int), "nll": found.nll.round(3)}
    )


def status(grid: Grid) -> pd.DataFrame:
    """A row per block and variant: `rate` (`3 of 3 tried` before it is known), `seeds` made of those wanted, `ppl`
    (mean test perplexity of those made) and `step`, seconds of a step; None before a run is made."""
    table = pd.DataFrame([_status_row(grid, *cell) for cell in grid.cells()])
    return table.astype(object).where(table.notna(), None)


def _status_row(grid: Grid, block: str, variant: str) -> dict:
    tried, rate = grid.tuning_runs(block, variant), grid.rate(block, variant)
    results = [run.result() for run in grid.runs(block, variant) if run.usable]
    seconds = [r["step_seconds"] for r in results]
    return {
        "block": block,
        "variant": variant,
        "rate": f"{rate:g}" if rate else f"{sum(run.done for run in tried)} of {len(tried)} tried",
        "seeds": f"{len(results)} of {grid.blocks[block].seeds}",
        "ppl": f"{np.mean([np.exp(r['test']['loss']) for r in results]):.2f}" if results else None,
        "step": f"{np.mean(seconds):.3f}" if results else None,
    }


def remaining(grid: Grid) -> tuple[int, float | None]:
    """Runs that are missing, and the seconds that they will take: steps left by the seconds of a step of the same
    variant, else of the mean over those that are known; None before the first run."""
    missing: list[tuple[str, str, int]] = []
    known: dict[tuple[str, str], list[float]] = {}
    for cell in grid.cells():
        runs = grid.runs(*cell)
        tried = grid.tuning_runs(*cell)
        timed = [run.result()["step_seconds"] for run in (*tried, *runs) if run.done]
        known[cell] = [seconds for seconds in timed if seconds]
        missing += [(*cell, run.train.steps) for run in (*tried, *runs) if not run.done]
        if not runs:
            steps = -(-grid.train["tokens"] // (grid.train["batch"] * grid.train["length"]))
            missing += [(*cell, steps)] * grid.blocks[cell[0]].seeds
    rates = {cell: float(np.mean(values)) for cell, values in known.items() if values}
    if not rates:
        return len(missing), None
    mean = float(np.mean(list(rates.values())))
    return len(missing), float(sum(steps * rates.get((block, variant), mean) for block, variant, steps in missing))


def summary(grid: Grid) -> str:
    """One sentence: what is left."""
    return left_in_words(grid.size(), *remaining(grid))
