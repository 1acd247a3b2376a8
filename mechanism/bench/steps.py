"""Time and memory of a training step of each model of the multi-head grid, in turns."""

import tempfile
from pathlib import Path

import pandas as pd
import torch

from ..corpus.tokenizer import load_tokenizer
from ..nn.training import Trainer
from ..study.base.runs import TOKENIZER
from ..study.base.turns import in_turns
from ..study.grid.english import English
from ..study.m_multi_head.grid import Grid
from ..study.m_multi_head.tables import steps_record
from .training import compare, step_seconds

BLOCK = "plain"


def bench_steps(grid: Grid, turns: int = 20) -> pd.DataFrame:
    """Seconds of training steps of the models without shared experts or ternary weights, all of one seed in one
    process: they take turns step by step, each turn beginning with another model, and two first turns are left out.

    Returns:
        A row per seed, turn and variant: `seed`, `turn`, `variant`, `seconds`; `kept_bytes`, see there; `threads`,
        `torch`.
    """
    english = English(grid.text, load_tokenizer(TOKENIZER))
    table = pd.concat([_one_seed(grid, english, seed, turns) for seed in range(grid.blocks[BLOCK].seeds)])
    facts = {"threads": torch.get_num_threads(), "torch": torch.__version__.split("+")[0]}
    return table.reset_index(drop=True).assign(**facts)


def _one_seed(grid: Grid, english: English, seed: int, turns: int) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        trainers = {}
        for name in grid.blocks[BLOCK].variants:
            config = grid.run(BLOCK, name, lr=min(grid.tuning.rates), seed=seed).train
            trainers[name] = english.trainer(config, Path(folder) / name)
        kept = {name: round(kept_bytes(trainer), 1) for name, trainer in trainers.items()}
        taken = in_turns(trainers, step_seconds, turns, rotate=True)
    taken = taken.rename(columns={"case": "variant"}).round({"seconds": 5})
    taken.insert(0, "seed", seed)
    return taken.assign(kept_bytes=taken["variant"].map(kept))


def kept_bytes(trainer: Trainer) -> float:
    """Bytes that a training step's forward pass keeps for the backward pass, per token, in the dtype of training: the
    difference between a whole and half a batch over the tokens between, so that copies of weights cancel."""
    ids = torch.as_tensor(trainer.batches(0), dtype=torch.long)
    half = ids[: len(ids) // 2]
    tokens = (len(ids) - len(half)) * (ids.shape[1] - 1)
    return (_kept(trainer, ids) - _kept(trainer, half)) / tokens


def _kept(trainer: Trainer, ids: torch.Tensor) -> int:
    """Bytes of the storages that are saved for the backward pass, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in trainer.model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trainer.model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = trainer.losses(ids)
    del losses
    return sum(kept.values())


def summary(grid: Grid, table: pd.DataFrame) -> dict:
    """`name`, `cases` (see `bench.compare`: tokens per second over the turns of all seeds; with `kept_bytes`), and the
    `ratio` of the last."""
    names = list(table["variant"].unique())
    seconds = table.pivot(index=["seed", "turn"], columns="variant", values="seconds")[names]
    kept = table.groupby("variant")["kept_bytes"].median()
    variants = [{"variant": name, "kept_bytes": float(kept[name])} for name in names]
    cases = compare(grid.train["batch"] * grid.train["length"] / seconds.to_numpy(), variants)
    return {"name": "steps", "ratio": cases[-1]["ratio"], "cases": cases}


def write(grid: Grid, table: pd.DataFrame) -> None:
    """Keep a table."""
    steps_record(grid).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(steps_record(grid), index=False)
