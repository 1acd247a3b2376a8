"""Making the runs of the cross-lingual grid: what they read and start from, and what is measured of them."""

from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedModel

from ...corpus.language_stream import LanguageStream
from ...corpus.tokenizer import load_tokenizer
from ...nn.distil import copy_frame, distil
from ...nn.feedforward import DenseConfig
from ...nn.language import listeners
from ...nn.training import Trainer
from ...nn.variants import VariantConfig
from ..base.probe_log import ProbeLog, join_probes, write_stats
from ..base.runs import TOKENIZER
from ..grid.run import Workshop
from .grid import LanguageGrid
from .held_out import HeldOut, bits_table, macro_loss, use_of_experts
from .measures import MEASURES
from .run import USE, Adaptation, Cell, LanguageRun, Thesis

DISTIL_STEP = 10**9  # a step of the stream that no run reaches: its batches are what experts are fitted on


class LanguageWorkshop(Workshop[LanguageRun]):
    """The report's tokenizer for all runs."""

    def __init__(self, grid: LanguageGrid) -> None:
        self.grid, self.tokenizer = grid, load_tokenizer(TOKENIZER)

    def trainer(self, run: LanguageRun) -> Trainer:
        """The run's trainer at its newest checkpoint; at the start, with what it takes over from its dense twin."""
        stream, config = LanguageStream(run.stream, self.tokenizer), run.train
        listens = not isinstance(_variant(run).layer, DenseConfig)

        def batches(step: int) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
            """Those of the run's own steps: a parent of the same seed has read those before `begins`."""
            ids, lang = stream.told_batch(config.seed, run.begins + step, config.batch, config.length)
            return (ids, lang) if listens else ids

        def probe(model: PreTrainedModel) -> xr.Dataset:
            return self._use(run, model, "dev", run.held.routed).to_dataset(name="dev")

        trainer = Trainer(config, batches, run.workspace)
        if listens:
            trainer.probe = ProbeLog(run.workspace / "probes", probe)
        if run.start and trainer.step == 0:
            self._take_over(run, trainer.model, torch.as_tensor(batches(DISTIL_STEP)[0], dtype=torch.long))
        return trainer

    def _take_over(self, run: LanguageRun, model: PreTrainedModel, ids: torch.Tensor) -> None:
        parent = self.grid.parent(run)
        with parent.lock:
            dense = self.trainer(parent)
            dense.run()  # ends at once where the twin's weights are there
        if run.start == "copied":
            copy_frame(model, dense.model.eval())
        else:
            distil(model, dense.model.eval(), ids.to(dense.device), run.train.seed)

    def measure(self, run: LanguageRun, trainer: Trainer) -> dict[str, Any]:
        """Write `bits.csv` (dev and test documents), `use.nc` and what `then` names; returns losses and sizes."""
        model, codes = trainer.model, run.stream.languages
        tables = {
            split: bits_table(model, self.tokenizer, codes, run.told_ids, split, run.held.segments)
            for split in ("dev", "test")
        }
        joined = pd.concat([table.assign(split=split) for split, table in tables.items()])
        joined.to_csv(run.record / "bits.csv", index=False)
        if listeners(model):
            test = self._use(run, model, "test", run.held.segments).drop_vars("tokens")
            write_stats(join_probes(run.workspace / "probes").assign(test=test), run.record / USE)
        result: dict[str, Any] = {split: round(macro_loss(table), 5) for split, table in tables.items()}
        result |= {
            "parameters": _variant(run).parameters(), "active_parameters": _variant(run).active_parameters(),
            "feed_forward": sum(p.numel() for n, p in model.named_parameters() if ".mlp." in n),
            "shares": LanguageStream(run.stream, self.tokenizer).language_shares,
        }  # fmt: skip
        for name in run.then:
            result |= MEASURES[name](run, trainer, self.tokenizer)
        return result

    def _use(self, run: LanguageRun, model: PreTrainedModel, split: str, segments: int) -> xr.DataArray:
        return use_of_experts(model, self.tokenizer, run.stream.languages, run.told_ids, split, segments)


def _variant(run: LanguageRun) -> VariantConfig:
    assert isinstance(run.train.model, VariantConfig)
    return run.train.model


def load_grid(name: str, fields: dict[str, Any]) -> LanguageGrid:
    """The grid of a file's fields.

    Raises:
        TypeError: a field that does not exist, or a missing one.
        ValueError: see `Cell`.
    """
    cells = {key: Cell(**{**cell, "then": tuple(cell.get("then", ()))}) for key, cell in fields.pop("cells").items()}
    languages, compared = tuple(fields.pop("languages")), None
    if given := fields.pop("thesis", None):
        told: dict[str, Any] = {name: tuple(own) if isinstance(own, list) else own for name, own in given.items()}
        compared = Thesis(**told)
        cells |= dict(compared.cells(languages, fields["train"]["tokens"]))
    plan = fields.pop("adaptation")
    plan |= {"methods": tuple(map(tuple, plan["methods"])), "marks": tuple(plan["marks"])}
    return LanguageGrid(
        name, languages, adaptation=Adaptation(**plan), held=HeldOut(**fields.pop("held")),
        cells=cells, thesis=compared, shop=LanguageWorkshop, **fields,
    )  # fmt: skip
