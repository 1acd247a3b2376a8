"""A model with a language-aware router, small enough to be trained while a page is built."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import xarray as xr
from transformers import PreTrainedTokenizerFast

from ...corpus.language_stream import UNTOLD, LanguageStream, LanguageStreamConfig
from ...nn.language_moe import LanguageMoEConfig
from ...nn.train_config import TrainConfig
from ...nn.training import Trainer
from ...nn.variants import VariantConfig
from .held_out import bits_table, macro_loss, use_of_experts

LANGUAGES = ("hi", "ko", "km", "om")
"""Read all alike."""
BATCH, LENGTH, SEGMENTS = 8, 64, 6


@dataclass(frozen=True)
class Demonstration:
    """How it is trained: `steps`, and the `seed` of weights and data order."""

    steps: int = 150
    seed: int = 0

    def train(self, vocab: int) -> TrainConfig:
        """The run."""
        layer = LanguageMoEConfig(32, experts=8, top_k=2, width=32, languages=len(LANGUAGES), signal="added")
        model = VariantConfig(layer, vocab, layers=2, heads=1, head_dim=32, context=512)
        tokens = self.steps * BATCH * LENGTH
        return TrainConfig(model, tokens, BATCH, LENGTH, 6e-3, warmup=10, compile=False, seed=self.seed, probes=())

    def __call__(self, tokenizer: PreTrainedTokenizerFast) -> "Shown":
        """Train, and score dev text with the language told right, told wrong (the next one) and withheld."""
        stream = LanguageStream(LanguageStreamConfig(LANGUAGES, alpha=0.0), tokenizer)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                self.train(len(tokenizer)), lambda step: stream.told_batch(self.seed, step, BATCH, LENGTH), Path(folder)
            )
            for _ in range(self.steps):
                trainer.advance()
        model, right = trainer.model.eval(), list(range(len(LANGUAGES)))
        told = {"right": right, "wrong": right[1:] + right[:1], "unknown": [UNTOLD] * len(right)}
        loss = {
            name: macro_loss(bits_table(model, tokenizer, LANGUAGES, ids, "dev", SEGMENTS))
            for name, ids in told.items()
        }
        use = use_of_experts(model, tokenizer, LANGUAGES, right, "dev", SEGMENTS)
        return Shown(pd.Series(loss), use / use.sum("expert"))


@dataclass
class Shown:
    """Dev loss in bits per byte by what was told, and shares of selections `(lang, layer, expert)`."""

    loss: pd.Series
    use: xr.DataArray
