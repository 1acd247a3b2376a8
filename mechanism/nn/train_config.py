"""What a training run depends on besides its data."""

import math
from dataclasses import dataclass, field
from typing import Any

from .auto import layer_config
from .lm import LMConfig
from .variants import VariantConfig


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on besides its data.

    Attributes:
        model: architecture; a `VariantConfig` brings its own experts and what balances them besides the loss.
        tokens: length of the run; it ends at the first step past it.
        batch, length: sequences per step and tokens per sequence.
        lr: peak learning rate, reached after `warmup` steps, constant, then linear to zero over the last
            `decay` share of steps.
        balance: weight of the load-balance loss, computed per layer and averaged over layers; at 0 it is not computed.
        dtype: `float32`, or `bfloat16` for autocast.
        experts: experts implementation (`padded`, or one of transformers').
        compile: use torch.compile.
        probes: tokens at which the model is probed, besides start and end.
    """

    model: LMConfig | VariantConfig = LMConfig()
    tokens: int = 40_000_000
    batch: int = 32
    length: int = 256
    lr: float = 3e-3
    warmup: int = 100
    decay: float = 0.2
    weight_decay: float = 0.05
    balance: float = 0.01
    dtype: str = "float32"
    experts: str = "padded"
    compile: bool = True
    seed: int = 0
    probes: tuple[int, ...] = field(
        default=(250_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 12_000_000, 16_000_000, 20_000_000,
                 28_000_000, 36_000_000)
    )  # fmt: skip

    @property
    def step_tokens(self) -> int:
        return self.batch * self.length

    @property
    def steps(self) -> int:
        return math.ceil(self.tokens / self.step_tokens)

    def rate(self, step: int, restart: int = 0) -> float:
        """Learning rate of a step (warm-up, constant, linear decay); warmed up anew from a restart."""
        start = self.steps * (1 - self.decay)
        warm, left = (step - restart + 1) / self.warmup, max(self.steps - step, 1)
        return self.lr * min(warm, 1.0, left / max(self.steps - start, 1))

    def probe_steps(self) -> set[int]:
        """Steps before which the model is probed."""
        return {0, self.steps} | {s for t in self.probes if (s := round(t / self.step_tokens)) < self.steps}


def read_config(payload: dict) -> TrainConfig:
    """A TrainConfig from a JSON or YAML mapping; unknown keys are errors.

    Raises:
        TypeError: a key that no field has.
    """
    model = dict(payload.get("model", {}))
    if "layer" in model:
        model["layer"] = layer_config(model["layer"])
    fields: dict[str, Any] = {**payload, "model": (VariantConfig if "layer" in model else LMConfig)(**model)}
    if "probes" in fields:
        fields["probes"] = tuple(fields["probes"])
    return TrainConfig(**fields)
