"""A run of the grid of multi-head layers, and what is measured of it."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from ...corpus.tokenizer import load_tokenizer
from ...nn.checkpoint import TrainingError
from ...nn.feedforward import DenseConfig
from ...nn.training import Trainer
from ...nn.variants import VariantConfig
from ...trace import RoutingStats
from ..base.runs import TOKENIZER
from ..grid.english import CORPORA, English, TextConfig, mean_loss, score
from ..grid.run import RecordedRun, Workshop

ALONG = "along"


@dataclass(frozen=True)
class GridRun(RecordedRun):
    """One run of a grid: its `block` and `variant`, whether it only chooses a learning rate (`tuning`), the `text` that
    is scored, and the content hash of the corpora."""

    aside = ("grid", "block", "variant")
    block: str
    variant: str
    tuning: bool
    text: TextConfig
    data: str

    @property
    def name(self) -> str:
        """For people."""
        what = f"rate {self.train.lr:g}" if self.tuning else f"seed {self.train.seed}"
        return f"{self.block} {self.variant} {what}"


class EnglishWorkshop(Workshop[GridRun]):
    """English text for all runs.

    Raises:
        TrainingError: a vocabulary that is too small for the text.
    """

    def __init__(self, text: TextConfig, vocab: int) -> None:
        self.english = English(text, load_tokenizer(TOKENIZER))
        if len(self.english.vocabulary) > vocab:
            raise TrainingError(
                f"the text has {len(self.english.vocabulary)} kinds of tokens, the grid's vocab is {vocab}"
            )

    def trainer(self, run: GridRun) -> Trainer:
        """The run's trainer at its newest checkpoint."""
        trainer = self.english.trainer(run.train, run.workspace)
        trainer.probe = partial(self._score_along, run)
        return trainer

    def _score_along(self, run: GridRun, model: PreTrainedModel, tokens: int) -> None:
        """Score the test text between start and end of a run whose configuration has probes."""
        path = run.workspace / ALONG / f"{tokens:012d}.csv"
        if 0 < tokens < run.train.steps * run.train.step_tokens and not run.tuning and not path.exists():
            path.parent.mkdir(exist_ok=True)
            score(model, self.english.windows["test"]).round(3).assign(seen=tokens).to_csv(path, index=False)

    def measure(self, run: GridRun, trainer: Trainer) -> dict[str, Any]:
        """Loss of dev windows, and of a run that does not tune that of test windows, by document in `test.csv`, the
        same after `seen` tokens in `along.csv`, and the selections of each expert by corpus."""
        if along := sorted((run.workspace / ALONG).glob("*.csv")):
            pd.concat(map(pd.read_csv, along)).to_csv(run.record / f"{ALONG}.csv", index=False)
        dev = {"dev": _totals(score(trainer.model, self.english.windows["dev"]))}
        return dev if run.tuning else dev | self._test(run, trainer.model)

    def _test(self, run: GridRun, trained: PreTrainedModel) -> dict[str, Any]:
        model = run.train.model
        assert isinstance(model, VariantConfig)
        stats = None if isinstance(model.layer, DenseConfig) else RoutingStats(groups=CORPORA)
        found = score(trained, self.english.windows["test"], stats)
        found.round(3).to_csv(run.record / "test.csv", index=False)
        facts: dict[str, Any] = {
            "parameters": model.parameters(), "active_parameters": model.active_parameters(),
            "flops": sum(part.flops for part in model.parts(run.train.length).values()),
            "test": _totals(found),
        }  # fmt: skip
        if stats is not None:
            facts["layers"] = list(stats.layers)
            facts["selections"] = dict(zip(stats.groups, stats.sums["selections"][0].tolist(), strict=True))
        return facts


def _totals(found: pd.DataFrame) -> dict[str, float]:
    return {"loss": round(mean_loss(found), 6), "tokens": int(found["tokens"].sum())}
