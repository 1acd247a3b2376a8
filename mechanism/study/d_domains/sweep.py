"""The causal sweep that finds driver experts: every expert ablated, on text of every domain, and its record."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...corpus.library import load
from ...models.load import model_hash
from ...models.passes import batches_by_length, encode, pad, padded_batches, padding_token, room
from ...trace import attach, expert_means, find_sites
from ...trace.proof import proven
from ..base.records import recorded_of, texts_hash
from ..base.study import Study, plain
from .cheap import cheap_statistics, massive_layers
from .domain_text import SWEEP, Piece, SweepConfig, passages
from .driver_experts import Swept
from .effects import BLOCK, FIRST, ROWS, Settings
from .shards import Job, Results, fingerprint, finish, merge

Say = Callable[[str], None]
Progress = Callable[[float, float], None]
Effect = Callable[[PreTrainedModel, PreTrainedTokenizerBase, Sequence[str]], np.ndarray]
TOKENS = 64


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is carried out; nothing here changes a result by more than rounding. Shards run where
    `joblib.parallel_config` says, in this process without it.

    Attributes:
        layer_shards: into how many ranges of layers each batch is cut.
        memory: gigabytes beside the model's weights that a process may use: decides how many tokens are held at once.
        folder: where finished shards are kept, to go on from; a temporary one without it.
        source: how another process loads the model: name, device, dtype; without it each shard is sent the model.
    """

    layer_shards: int = 1
    memory: float = 1.0
    folder: Path | None = None
    source: tuple[str, str, str] | None = None


OPTIONS = SweepOptions()


def sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SweepConfig | None = None,
    options: SweepOptions = OPTIONS,
    samples: int = 1,
    say: Say = lambda line: None,
    progress: Progress = lambda done, total: None,
    **asked: Any,
) -> Swept:
    """Ablate every expert of every layer in every mode, and sum what changes over the tokens of each segment:
    `sweep(model, tokenizer, data="tech", modes=["zero"]).drivers()`.

    The dataset of the result is over `(mode, sequence, layer, expert)`: `kl`, sum over tokens of KL(p || p without the
    expert) of the next-token distribution in nats; `own`, the same over the tokens that select the expert; `loss`,
    growth of the loss summed over the `targets` tokens that have a next one; `selections`, `tokens`; `domain`, `lang`
    and `document` of each sequence. The token that opens a sequence is left alone, neither ablated nor counted: what is
    done to it reaches all text through attention. An expert that no text token selects has exactly 0. An ablation that
    makes the output NaN has NaN, and `failed` in the attributes counts them. On the same text, the cheap statistics of
    every expert: `(layer, expert)` means per token (`peak`: maximum) under `cheap_NAME`; by sequence `control`, its sum
    of `relative`; and `forming`: layers that form massive activations.

    Modes for which restarting could not be proven on this model run by whole passes; `fallback` in the attributes tells
    which and why, and `say` is told.

    Args:
        config: what is swept; without it `SweepConfig.parse` of what is `asked`.
        samples: next tokens drawn for `cheap_fisher`; 0 leaves out what is made of gradients.

    Raises:
        CorpusError: no text; TraceError: a model that cannot be observed; ValueError: `zero` is not among the modes.
    """
    config = config or SweepConfig.parse(**asked)
    if "zero" not in config.modes:
        raise ValueError(f"driver experts are ranked by zero ablation: sweep it beside {' '.join(config.modes)}")
    texts = passages(config)
    ids, padding = encode(tokenizer, [p.text for p in texts], config.max_tokens), padding_token(tokenizer)
    plan = Plan(model, ids, padding, config.modes, options)
    say(plan.describe())
    found = plan.dataset(plan.run(progress), texts, config)
    cheap, own = cheap_statistics(model, ids, padding, samples=samples, seed=config.seed), Swept(found)
    for name, values in cheap.items():
        found[f"cheap_{name}"] = ("layer", "expert"), values.max(0) if name == "peak" else own.effects(values).mean()
    found["control"] = ("sequence", "layer", "expert"), cheap["relative"]
    return Swept(found.assign(forming=("layer", massive_layers(model, ids[:8], padding))), seed=config.seed)


def record_key(spec: str, config: SweepConfig = SWEEP, dtype: str = "float32") -> tuple[dict[str, Any], str]:
    """Configuration and data that the record of a sweep is found by."""
    about = {"study": "sweep", "model": model_hash(spec), "dtype": dtype, "first_ablated": FIRST, "means": "domains"}
    return {**about, **plain(config)}, texts_hash([load(name, config.languages or ()) for name in config.data])


def study(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: str,
    dtype: str = "float32",
    profile: str = "auto",
    config: SweepConfig = SWEEP,
    sample: int = 4,
    command: str = "",
    **how: Any,
) -> Swept:
    """The sweep of a model under a profile, see `PROFILES`.

    Args:
        spec, dtype: of the model, for the address of its record.
        config: the full sweep; sample: segments per domain and language in a sample of it.
        command: what makes the record, `mechanism sweep SPEC` without it; how: arguments of `sweep`.

    Raises:
        ValueError: no such profile; see `sweep`.
    """

    def swept(asked: SweepConfig) -> xr.Dataset:
        return sweep(model, tokenizer, asked, **how).found

    asked = Study(
        *record_key(spec, config, dtype), lambda: swept(config), lambda: swept(replace(config, max_segments=sample)),
        command or f"mechanism sweep {spec}", spec,
    )  # fmt: skip
    return Swept(asked.result(profile), seed=config.seed)


def others(spec: str, dtype: str = "float32", config: SweepConfig = SWEEP) -> dict[str, Swept]:
    """The recorded sweeps of the other training seeds on the same text, by name."""
    return {
        name: Swept(own, seed=config.seed) for name, own in recorded_of(spec, *record_key(spec, config, dtype)).items()
    }


def ablation_effect(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """Mean over tokens of `KL(p || p without the expert)` in nats, `(layer, expert)`, its contribution set to zero; 0
    for an expert that no token selects. For a few texts, each cut to 64 tokens; the one that opens a text is
    neither ablated nor counted. See `sweep`.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("an effect needs some text")
    ids = encode(tokenizer, texts, min(TOKENS, room(model)))
    found = Plan(model, ids, padding_token(tokenizer), ("zero",)).run()
    return np.asarray(found["kl"][0].sum(0) / found["tokens"].sum())


DRIVERS: Mapping[str, Effect] = MappingProxyType({"ablation": ablation_effect})
"""Rankings of experts by causal effect, by name."""


class Plan:
    """A sweep cut into batches of similar length and ranges of layers; proves on the first batch how to restart."""

    def __init__(
        self, model: PreTrainedModel, ids: Sequence[Sequence[int]], padding: int, modes: tuple[str, ...],
        options: SweepOptions = OPTIONS,
    ) -> None:  # fmt: skip
        self.model, self.ids, self.padding, self.options = model, ids, padding, options
        with attach(model, keep=False) as trace:
            self.sites = trace.sites
        self.tokens = tokens_at_once(model, options.memory, modes)
        self.batches = batches_by_length(ids, self.tokens)
        means = self._means() if "mean" in modes else None
        way = proven(model, *self.padded(self.batches[len(self.batches) // 2]), modes, means, FIRST)
        self.settings = Settings(modes, means, way)

    def padded(self, batch: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens and mask of some sequences, both `(batch, pos)`."""
        ids, mask = pad([self.ids[i] for i in batch], self.padding)
        return ids.to(self.model.device), mask.to(self.model.device)

    def _means(self) -> dict[int, Tensor]:
        padded = padded_batches(self.model, self.ids, self.padding, self.tokens)
        inputs = ({"input_ids": ids, "attention_mask": mask, "use_cache": False} for _, ids, mask in padded)
        return {layer: mean.cpu() for layer, mean in expert_means(self.model, inputs, FIRST).items()}

    @property
    def key(self) -> str:
        """Name of what the shards hold: the model, tokens, modes, the first token that is ablated, and the cut."""
        cut = [self.batches, self.options.layer_shards, self.settings.modes, sorted(self.settings.way.via.items())]
        cut += [fingerprint(self.model), {"first": FIRST}]
        payload = json.dumps([cut, list(map(list, self.ids))])
        return hashlib.sha256(payload.encode()).hexdigest()[:12]

    def jobs(self) -> list[Job]:
        """The shards; long batches first, so that none is left over at the end."""
        ranges = np.array_split([site.layer for site in self.sites], max(1, self.options.layer_shards))
        found = []
        for number, batch in reversed(list(enumerate(self.batches))):
            for part in ranges:
                if len(part):
                    settings = replace(self.settings, layers=tuple(map(int, part)))
                    weight = float(sum(len(self.ids[i]) for i in batch) * len(part))
                    ids = [self.ids[i] for i in batch]
                    key = f"{number:05d}-{part[0]:03d}-{part[-1]:03d}"
                    model = self.options.source or self.model
                    found.append(Job(key, weight, model, tuple(batch), ids, self.padding, settings))
        return found

    def run(self, progress: Progress = lambda done, total: None) -> Results:
        """Arrays of all shards, see `BatchEffects`, over all sequences and layers."""
        kept = self.options.folder
        with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as folder:
            parts = list(finish(self.jobs(), Path(folder) / self.key, progress))
        return merge(parts, len(self.ids), [site.layer for site in self.sites])

    def dataset(self, merged: Results, texts: Sequence[Piece], config: SweepConfig) -> xr.Dataset:
        """What `run` gave, with names and labels."""
        full = ("mode", "sequence", "layer", "expert")
        data: dict[str, Any] = {name: (full[-values.ndim :] if values.ndim > 1 else "sequence", values)
                                for name, values in merged.items()}  # fmt: skip
        labels = {name: ("sequence", [getattr(p, name) for p in texts]) for name in ("domain", "lang", "document")}
        coords = {
            "mode": list(config.modes), "layer": [site.layer for site in self.sites],
            "expert": np.arange(merged["kl"].shape[3]),
        }  # fmt: skip
        about = {"config": json.dumps(asdict(config), sort_keys=True)}
        about["fallback"] = json.dumps(dict(self.settings.way.reasons))
        return xr.Dataset(data | labels, coords, about | {"failed": int(np.isnan(merged["kl"]).sum())})

    def describe(self) -> str:
        """What is about to happen, in one sentence."""
        experts = sum(site.num_experts for site in self.sites)
        total = sum(map(len, self.ids))
        way = self.settings.way
        text = (
            f"{experts} experts in {len(self.sites)} layers, modes {' '.join(self.settings.modes)}, {total:,} tokens "
            f"in {len(self.batches)} batches of at most {self.tokens:,} ({self.options.memory:g} GB beside the weights)"
        )
        text += f"; restarted after the ablated layer: {' '.join(way.via) or 'no mode'}"
        return text + "".join(f"; {mode} by whole passes: {why}" for mode, why in way.reasons.items())


def tokens_at_once(model: PreTrainedModel, memory: float, modes: Sequence[str]) -> int:
    """Tokens that a clean pass may hold within so many gigabytes, 256 to 4096.

    A token takes its distribution and logits, the hidden states after every layer, what the experts of every layer
    receive and give, and the changes of one layer. Continued passes take a fixed part besides.
    """
    sites, config = find_sites(model), model.config.get_text_config()
    width, vocabulary, size = config.hidden_size, config.vocab_size, model.dtype.itemsize
    slots = max(site.top_k * site.heads for site in sites)
    states = config.num_hidden_layers + 2 + 4 * len(sites) + 3 * (len(modes) + 1) * slots
    each = (4 + size) * vocabulary + size * width * states
    fixed = 4 * (2 * BLOCK + 4 * ROWS * vocabulary) + 2048 * size * width * 3 * (slots + 4)
    return int(np.clip((memory * 1e9 - fixed) / each, 256, 4096))
