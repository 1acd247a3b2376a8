"""The embedded model and its siblings: how a run is trained, recorded, staged and exported.

A stage is what of an unfinished run is small enough to be committed, so that it can go on where its workspace is gone:
the weights in bfloat16 beside the record so far. Optimiser state is left out: a run that goes on from a stage begins a
new warm-up, and its record names the step.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from ...corpus.mixture import Mixture
from ...corpus.tokenizer import load_tokenizer
from ...models.load import MODELS, save_model
from ...nn.checkpoint import Checkpoint, TrainingError, checkpoint_files, checkpoint_path, dump_json, read_checkpoint
from ...nn.training import Trainer
from ..base.probe_log import ProbeLog, join_probes, shown, thin, write_stats
from ..base.runs import EVALUATION, SHARES, TOKENIZER, Run
from .evaluate import RECORD_SEGMENTS, EvaluateConfig, evaluate
from .probes import probe, split_probes

STAGE = "stage.safetensors"


def trainer(run: Run, mixture: Mixture | None = None) -> Trainer:
    """The run's trainer, at its newest checkpoint, or at the stage of its record where the workspace has none."""
    _restore(run)
    tokenizer = load_tokenizer(TOKENIZER)
    mixture = mixture or Mixture(run.mixture, tokenizer)
    config, log = run.train, ProbeLog(run.workspace / "probes", partial(probe, tokenizer=tokenizer))
    return Trainer(
        config, lambda step: mixture.batch(config.seed, step, config.batch, config.length), run.workspace, log
    )


def stream_shares(run: Run, mixture: Mixture | None = None) -> dict[str, float]:
    """Share of tokens by kind of document on the first 20 batches of a run's stream; measured once, then read from the
    run's record."""
    path = run.record / SHARES
    if not path.exists():
        mixture = mixture or Mixture(run.mixture, load_tokenizer(TOKENIZER))
        shares = mixture.shares(run.train.seed, size=run.train.batch, length=run.train.length)
        path.parent.mkdir(parents=True, exist_ok=True)
        dump_json(path, {kind: round(share, 4) for kind, share in shares.items()})
    return json.loads(path.read_text("utf-8"))


def finish(run: Run, train: Trainer) -> Path:
    """Write the record of a run to `data/runs/<hash>`: configuration, metrics thinned to one row in ten, statistics at
    the probes, `result.json`, and the evaluation once it is finished. Unfinished runs are recorded as such."""
    done = train.step >= run.train.steps
    record = _write_record(run, train.step, train.restarts, done, train.made_on())
    if done and not (record / EVALUATION).exists():
        tokenizer = load_tokenizer(TOKENIZER)
        table = evaluate(train.model, tokenizer, EvaluateConfig(max_segments=RECORD_SEGMENTS))
        table.round(5).to_csv(record / EVALUATION, index=False)
    if done:
        (record / STAGE).unlink(missing_ok=True)
    return record


def _write_record(run: Run, step: int, restarts: tuple[int, ...], finished: bool, made_on: Mapping[str, str]) -> Path:
    """The record of a run up to a step, from what its workspace holds; `made_on` goes into its result."""
    record = run.record
    record.mkdir(parents=True, exist_ok=True)
    config = {"name": run.name, **run.identity}
    dump_json(record / "config.json", config)
    metrics = pd.read_csv(run.workspace / "metrics.csv")
    metrics = metrics[metrics["step"] <= step]
    thin(metrics).to_csv(record / "metrics.csv", index=False)
    write_stats(join_probes(run.workspace / "probes", step * run.train.step_tokens), record / "stats.nc")
    result = {
        "finished": finished, "steps": step, "tokens": step * run.train.step_tokens, "restarts": list(restarts),
        "loss": round(final_loss(metrics), 4), "hours": round(seconds(metrics) / 3600, 2),
        "parameters": run.train.model.parameters(), "active_parameters": run.train.model.active_parameters(),
        "torch": torch.__version__.split("+")[0], "threads": torch.get_num_threads(),
    }  # fmt: skip
    dump_json(record / "result.json", result | dict(made_on))
    return record


def stage(run: Run) -> Path:
    """Write the newest checkpoint's weights and the record up to it to `data/runs/<hash>`, without training; the
    workspace is only read, also while the run goes on. Returns the file of the weights.

    Raises:
        TrainingError: no checkpoint, or a corrupted one; the disk is full.
    """
    files = checkpoint_files(run.workspace)
    if not files:
        raise TrainingError(
            f"{run.name} has no checkpoint in {run.workspace}: train it first, `mechanism train --config {run.name}`"
        )
    found = read_checkpoint(files[max(files)])
    path = _write_record(run, found.step, found.restarts, False, {}) / STAGE
    try:
        found.weights().write(path)
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error.strerror}; free some space and run it again") from error
    return path


def _restore(run: Run) -> None:
    """Fill a workspace without checkpoints from the stage of the record, if it has one: weights, metrics and probes;
    else with the weights of its base, if it has one, as step 0.

    Raises:
        TrainingError: the stage is corrupted, or the base's last weights are not there.
    """
    path = run.record / STAGE
    if checkpoint_files(run.workspace):
        return
    if not path.exists():
        if run.base:
            _begin(run)
        return
    found = read_checkpoint(path, "restore it from version control, or delete it to begin from the first step")
    run.workspace.mkdir(parents=True, exist_ok=True)
    shutil.copy(run.record / "metrics.csv", run.workspace)
    split_probes(run.record / "stats.nc", run.workspace / "probes", found.step * run.train.step_tokens)
    found.write(checkpoint_path(run.workspace, found.step))


def _begin(run: Run) -> None:
    """Put the last weights of a run's base into its workspace, as step 0."""
    config = run.record.with_name(run.base) / "config.json"
    known = json.loads(config.read_text("utf-8")) if config.exists() else {}
    finished = known and json.loads((config.parent / "result.json").read_text("utf-8"))
    files = checkpoint_files(run.workspace.with_name(run.base))
    if not (finished and finished["finished"] and finished["steps"] in files):
        raise TrainingError(
            f"{run.name} begins with the last weights of its base {known.get('name', run.base)}, which are not in "
            f"{run.workspace.with_name(run.base)}: train the base first, `mechanism train --config NAME`"
        )
    weights = {k: v for k, v in read_checkpoint(files[finished["steps"]]).state.items() if k.startswith("model.")}
    run.workspace.mkdir(parents=True, exist_ok=True)
    Checkpoint(weights, 0).write(checkpoint_path(run.workspace, 0))


def branch(run: Run, parent: Run) -> int:
    """Let a run begin at the newest checkpoint of a longer one that is the same up to there; returns the step.

    While the learning rate is constant, the length of a run has no influence on it: a shorter run of the same seed and
    data shares its parent's steps until it begins to decay.

    Raises:
        TrainingError: the runs differ in more than their length, or no checkpoint lies before the decay.
    """
    if replace(run.train, tokens=0) != replace(parent.train, tokens=0) or run.mixture != parent.mixture:
        raise TrainingError(f"{run.name} cannot branch off {parent.name}: they differ in more than their tokens")
    stable = min(r.train.steps * (1 - r.train.decay) for r in (run, parent))
    _restore(parent)
    found = checkpoint_files(parent.workspace)
    shared = [step for step in found if step <= stable]
    if not shared:
        raise TrainingError(f"{parent.name} has no checkpoint up to step {int(stable)}; it has {sorted(found)}")
    (run.workspace / "probes").mkdir(parents=True, exist_ok=True)
    shutil.copy(found[max(shared)], run.workspace)
    shutil.copy(parent.workspace / "metrics.csv", run.workspace)
    for path in (parent.workspace / "probes").glob("*.nc"):
        if int(path.stem) <= max(shared) * run.train.step_tokens:
            shutil.copy(path, run.workspace / "probes")
    return max(shared)


def seconds(metrics: pd.DataFrame) -> float:
    """Training time; where metrics are thinned, a row stands for the steps since the row before it."""
    return float((metrics["seconds"] * metrics["step"].diff().fillna(metrics["step"])).sum())


def final_loss(metrics: pd.DataFrame, steps: int = 50) -> float:
    """Mean of the training loss over the rows of the last steps."""
    return float(metrics.loc[metrics["step"] > metrics["step"].max() - steps, "loss"].mean())


def run_training(run: Run, steps: int | None, export: str | None, console: Console) -> Path:
    """Train a run with progress on the console, write its record, and on request the weights.

    Raises:
        TrainingError: see `Trainer.run`.
    """
    mixture = Mixture(run.mixture, load_tokenizer(TOKENIZER))
    train = trainer(run, mixture)
    console.print(f"run {run.name} {run.hash}: step {train.step} of {run.train.steps}, checkpoints in {run.workspace}")
    if train.step in train.restarts:
        console.print(
            f"it goes on from a stage: weights rounded to bf16, the optimiser's state was reset, and the learning rate "
            f"is warmed up again over {run.train.warmup} steps"
        )
    try:
        shown(train, console, steps)
    finally:
        if train.step:
            finish(run, train)
            stream_shares(run, mixture)
    if export:
        done = {"tokens": train.step * run.train.step_tokens, "finished": train.step >= run.train.steps}
        card = {"name": run.name, "run": run.hash, **done}
        save_model(train.model, load_tokenizer(TOKENIZER), MODELS / export, card)
    console.print(f"record in {run.record}")
    return run.record
