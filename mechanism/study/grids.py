"""Grids of training runs by name."""

from importlib import import_module
from typing import Any

import yaml

from .base import runs as training_runs


def load_grid(name: str) -> Any:
    """A committed grid by name, or the grid of a file, as its chapter's kind of `RunGrid`: its `made_by` names the
    module beneath `study` whose `load_grid(name, fields)` makes it.

    Raises:
        FileNotFoundError: there is none; the message lists the committed ones.
        ValueError: the file does not say what reads it.
    """
    path = training_runs.config_file(name, training_runs.CONFIGS / "grids", "grid")
    fields = yaml.safe_load(path.read_text("utf-8"))
    maker = fields.pop("made_by", None)
    if not maker:
        raise ValueError(f"{path.name} does not say what reads it: give `made_by` a module beneath mechanism/study")
    return import_module(f".{maker}", __package__).load_grid(path.stem, fields)
