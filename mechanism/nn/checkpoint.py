"""Checkpoints as safetensors: whole (weights and optimiser state) or weights only in bfloat16."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor


class TrainingError(RuntimeError):
    """Training cannot go on; the sentence says why and what to do. Nothing written so far is lost."""


@dataclass(frozen=True)
class Checkpoint:
    """A state of a run.

    Attributes:
        state: tensors named `model.*` and, unless it holds weights only, `optimiser.*`.
        step: steps done.
        restarts: steps after which the optimiser began afresh, because only weights had been kept.
    """

    state: Mapping[str, Tensor]
    step: int
    restarts: tuple[int, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether a run can go on from it bit for bit: nothing but weights is needed at step 0."""
        return self.step == 0 or any(name.startswith("optimiser.") for name in self.state)

    def weights(self) -> "Checkpoint":
        """The weights alone, floating-point ones rounded to bfloat16."""
        kept = {
            name: value.to(torch.bfloat16) if value.is_floating_point() else value
            for name, value in self.state.items()
            if name.startswith("model.")
        }
        return Checkpoint(kept, self.step, self.restarts)

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        metadata = {
            "step": str(self.step),
            "restarts": json.dumps(self.restarts),
            "sha256": _digest(self.state),
        }
        temporary = path.with_suffix(".tmp")
        try:
            save_file(dict(self.state), temporary, metadata=metadata)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path, remedy: str = "delete it to go on from the one before") -> Checkpoint:
    """A checkpoint from its file.

    Raises:
        TrainingError: it cannot be read, or its content is not what was written; the sentence ends with the remedy.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        found = Checkpoint(load_file(path), int(metadata["step"]), tuple(json.loads(metadata.get("restarts", "[]"))))
        if metadata.get("sha256", (own := _digest(found.state))) != own:
            raise ValueError("its content does not match its sha256")
    except Exception as error:
        raise TrainingError(f"checkpoint {path} is corrupted ({error}); {remedy}") from error
    return found


def checkpoint_path(folder: Path, step: int) -> Path:
    """File of a step's checkpoint."""
    return folder / f"step-{step:07d}.safetensors"


def checkpoint_files(folder: Path) -> dict[int, Path]:
    """Checkpoints of a folder by step, oldest first."""
    return {int(path.stem.removeprefix("step-")): path for path in sorted(folder.glob("step-*.safetensors"))}


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def dump_json(path: Path, payload: dict) -> None:
    """Write JSON whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(payload, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    os.replace(temporary, path)
