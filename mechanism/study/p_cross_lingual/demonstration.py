"""A model with a language-aware router, small enough to be trained while a page is built."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from transformers import PreTrainedTokenizerFast

from ...corpus.language_stream import UNTOLD, LanguageStream, LanguageStreamConfig
from ...nn.language_moe import LanguageMoEConfig
from ...nn.train_config import TrainConfig
from ...nn.training import Trainer
from ...nn.variants import VariantConfig
from .held_out import bits_table, macro_loss, use_of_experts


@dataclass(frozen=True)
class Demonstration:
    """How it is trained.

    Attributes:
        languages: read, all alike; steps, batch, length: of the training; segments: of dev text, per language; seed.
    """

    languages: tuple[str, ...] = ("hi", "ko", "km", "om")
    steps: int = 150
    batch: int = 8
    length: int = 64
    segments: int = 6
    seed: int = 0

    def train(self, vocab: int) -> TrainConfig:
        """The run."""
        layer = LanguageMoEConfig(32, experts=8, top_k=2, width=32, languages=len(self.languages), signal="added")
        model = VariantConfig(layer, vocab, layers=2, heads=1, head_dim=32, context=512)
        tokens = self.steps * self.batch * self.length
        return TrainConfig(
            model, tokens, self.batch, self.length, lr=6e-3, warmup=10, compile=False, seed=self.seed, probes=()
        )

    def __call__(self, tokenizer: PreTrainedTokenizerFast) -> "Shown":
        """Train, and score dev text with the language told right, told wrong (the next one) and withheld."""
        stream = LanguageStream(LanguageStreamConfig(self.languages, alpha=0.0), tokenizer)

        def batches(step: int) -> tuple[np.ndarray, np.ndarray]:
            return stream.told_batch(self.seed, step, self.batch, self.length)

        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(self.train(len(tokenizer)), batches, Path(folder))
            rows = [trainer.advance() for _ in range(self.steps)]
        model, right = trainer.model.eval(), list(range(len(self.languages)))
        told = {"right": right, "wrong": right[1:] + right[:1], "unknown": [UNTOLD] * len(right)}
        loss = {
            name: macro_loss(bits_table(model, tokenizer, self.languages, ids, "dev", self.segments))
            for name, ids in told.items()
        }
        use = use_of_experts(model, tokenizer, self.languages, right, "dev", self.segments)
        return Shown(pd.DataFrame(rows).set_index("step")["loss"], pd.Series(loss), use / use.sum("expert"))


@dataclass
class Shown:
    """Training loss by step, dev loss in bits per byte by what was told, and shares of selections `(lang, layer,
    expert)`."""

    training: pd.Series
    loss: pd.Series
    use: xr.DataArray
