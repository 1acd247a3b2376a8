"""Grids of training runs by name."""

from importlib import import_module
from pathlib import Path

import yaml

from .base import runs as training_runs
from .grid.run import RunGrid


def grid_path(name: str) -> Path:
    """File of a committed grid, or the file itself.

    Raises:
        FileNotFoundError: there is none; the message lists the committed ones.
    """
    path = Path(name) if name.endswith(".yaml") else training_runs.CONFIGS / "grids" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (training_runs.CONFIGS / "grids").glob("*.yaml")))
        raise FileNotFoundError(f"no grid at {path}; committed ones: {known}")
    return path


def load_grid(name: str) -> RunGrid:
    """A committed grid by name, or the grid of a file. Its `made_by` names the module beneath `study` whose
    `load_grid(path)` reads it.

    Raises:
        FileNotFoundError: there is none; the message lists the committed ones.
        ValueError: the file does not say what reads it.
    """
    path = grid_path(name)
    maker = yaml.safe_load(path.read_text("utf-8")).get("made_by")
    if not maker:
        raise ValueError(f"{path.name} does not say what reads it: give `made_by` a module beneath mechanism/study")
    return import_module(f".{maker}", __package__).load_grid(path)
