"""A sparse and a multi-head model small enough to be trained while a page is built, and where sub-tokens go."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import xarray as xr
from transformers import PreTrainedModel

from ...nn.moe import SparseMoEConfig
from ...nn.train_config import TrainConfig
from ...nn.variants import VariantConfig
from ...trace import attach
from ..grid.english import English, mean_loss, score
from .grid import variant_layer

BASELINE = SparseMoEConfig(48, experts=7, top_k=1, width=128, normalise=False)
PAIR = ("sparse", "heads3")
BATCH, LENGTH = 16, 64


@dataclass(frozen=True)
class PairConfig:
    """How the pair is trained: `steps`, and the `seed` of weights and data order."""

    steps: int = 150
    seed: int = 0

    def train(self, variant: str, vocab: int) -> TrainConfig:
        """The run of a variant; every second of four layers is sparse."""
        model = VariantConfig(
            variant_layer(BASELINE, variant), vocab, layers=4, heads=3, head_dim=16, context=128, every=2,
            dense_width=BASELINE.width,
        )  # fmt: skip
        tokens = self.steps * BATCH * LENGTH
        return TrainConfig(model, tokens, BATCH, LENGTH, 6e-3, warmup=10, compile=False, seed=self.seed, probes=())


@dataclass
class Trained:
    """A trained model of the pair: its `losses` by step, `seconds` of training and dev `loss` in nats per token."""

    model: PreTrainedModel
    losses: pd.Series
    seconds: float
    loss: float


def train_pair(english: English, config: PairConfig = PairConfig()) -> dict[str, Trained]:
    """Train both, step by step in turn, on the same batches."""
    with tempfile.TemporaryDirectory() as folder:
        vocab = len(english.vocabulary)
        trainers = {name: english.trainer(config.train(name, vocab), Path(folder) / name) for name in PAIR}
        rows: dict[str, list[dict]] = {variant: [] for variant in PAIR}
        for _ in range(config.steps):
            for variant, trainer in trainers.items():
                rows[variant].append(trainer.advance())
    return {variant: _trained(trainers[variant].model, english, rows[variant]) for variant in PAIR}


def _trained(model: PreTrainedModel, english: English, rows: list[dict]) -> Trained:
    table = pd.DataFrame(rows).set_index("tokens")
    dev = english.windows["dev"]
    few = replace(dev, ids=dev.ids[::4], sizes=dev.sizes[::4], document=dev.document[::4])
    return Trained(model, table["loss"], float(table["seconds"].sum()), mean_loss(score(model, few)))


@torch.no_grad()
def sub_token_experts(model: PreTrainedModel, english: English, text: str) -> xr.DataArray:
    """Experts that each sub-token of a text selects, `(token, layer, head, slot)`; `token` holds the tokens as text.

    Raises:
        ValueError: see `English.encode`.
    """
    ids = english.encode(text)
    model.eval()
    with attach(model) as trace:
        model(input_ids=torch.as_tensor(ids)[None], use_cache=False)
    found = trace.dataset()["expert_index"].isel(batch=0, drop=True).rename(pos="token")
    return found.assign_coords(token=english.tokens(ids)).transpose("token", "layer", "head", "slot")[1:]


def routes(experts: xr.DataArray, layer: int) -> pd.DataFrame:
    """A row per token and a column per head of one layer: the experts of that sub-token, best first; and `distinct`,
    how many experts the token's sub-tokens select together."""
    own = experts.sel(layer=layer).values.astype(int)
    told = [[" ".join(map(str, slots)) for slots in token] for token in own]
    table = pd.DataFrame(told, columns=[f"sub-token {head}" for head in range(own.shape[1])])
    table.insert(0, "token", [repr(str(token))[1:-1].replace(" ", "␣") for token in experts["token"].values])
    return table.assign(distinct=[len(set(token.ravel())) for token in own])
