"""Stages: what of an unfinished run is small enough to be committed, so that it can go on where its workspace is gone.

A stage is the weights in bfloat16 beside the record so far. Optimiser state is left out: a run that goes on from a
stage begins a new warm-up, and its record names the step.
"""

import shutil
from pathlib import Path

import pandas as pd

from ...nn.checkpoint import Checkpoint, TrainingError, checkpoint_files, checkpoint_path, read_checkpoint
from .probes import split_probes

STAGE = "stage.safetensors"
_REMEDY = "restore it from version control, or delete it to begin from the first step"


def newest_checkpoint(workspace: Path, name: str) -> Checkpoint:
    """The newest checkpoint of a workspace.

    Raises:
        TrainingError: there is none.
    """
    found = checkpoint_files(workspace)
    if not found:
        raise TrainingError(
            f"{name} has no checkpoint in {workspace}: train it first, `mechanism train --config {name}`"
        )
    return read_checkpoint(found[max(found)])


def restore_stage(record: Path, workspace: Path, step_tokens: int) -> None:
    """Fill a workspace without checkpoints from the stage of a record, if it has one: weights, metrics and probes.

    Raises:
        TrainingError: the stage is corrupted.
    """
    path = record / STAGE
    if checkpoint_files(workspace) or not path.exists():
        return
    stage = read_checkpoint(path, _REMEDY)
    workspace.mkdir(parents=True, exist_ok=True)
    shutil.copy(record / "metrics.csv", workspace)
    split_probes(record / "stats.nc", workspace / "probes", stage.step * step_tokens)
    stage.write(checkpoint_path(workspace, stage.step))


def seconds(metrics: pd.DataFrame) -> float:
    """Training time; where metrics are thinned, a row stands for the steps since the row before it."""
    return float((metrics["seconds"] * metrics["step"].diff().fillna(metrics["step"])).sum())


def final_loss(metrics: pd.DataFrame, steps: int = 50) -> float:
    """Mean of the training loss over the rows of the last steps."""
    return float(metrics.loc[metrics["step"] > metrics["step"].max() - steps, "loss"].mean())
