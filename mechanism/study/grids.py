"""Which code makes the runs of a grid, by the `kind` in its file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from .m_multi_head import grid_train
from .m_multi_head.grid import grid_path, load_grid
from .p_cross_lingual import train as cross_train
from .p_cross_lingual.grid import KIND, load_cross_grid


@dataclass(frozen=True)
class GridCode:
    """What can be done with a grid: `load` it, `train` its missing runs, and say its `status` and `summary`."""

    load: Callable[[], Any]
    train: Callable[..., None]
    status: Callable[[Any], pd.DataFrame]
    summary: Callable[[Any], str]


def grid_code(name: str) -> GridCode:
    """The code of a grid by its name or file.

    Raises:
        FileNotFoundError: there is none; the message lists the committed ones.
    """
    path = grid_path(name)
    if yaml.safe_load(path.read_text("utf-8")).get("kind") == KIND:
        return GridCode(
            lambda: load_cross_grid(path), cross_train.train_cross_grid, cross_train.cross_status, cross_train.told
        )
    return GridCode(lambda: load_grid(name), grid_train.train_grid, grid_train.status, grid_train.summary)
