"""The causal effect of every expert: what its ablation does to the model's output, on text of every domain."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.passes import batches_by_length, encode, pad, padded_batches, padding_token
from ...trace import attach, expert_means, find_sites
from ...trace.proof import Way, proven
from .effects import BLOCK, FIRST, ROWS, Settings
from .shards import Engine, Job, Results, fingerprint, finish, merge, torch_bytes
from .sweep_text import SWEEP, Passage, SweepConfig, passages


@dataclass(frozen=True)
class SweepOptions:
    """How a sweep is carried out; nothing here changes a result by more than rounding.

    Attributes:
        engine: where shards run; layer_shards: into how many ranges of layers each batch is cut.
        memory: gigabytes beside the model's weights that a process may use: decides how many tokens are held at once.
        naive: whole passes only.
        folder: where finished shards are kept, to go on from; a temporary one without it.
        source: how a worker loads the model: name, device, dtype; needed outside this process.
    """

    engine: Engine = field(default_factory=Engine)
    layer_shards: int = 1
    memory: float = 1.0
    naive: bool = False
    folder: Path | None = None
    source: tuple[str, str, str] | None = None


OPTIONS = SweepOptions()


def sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SweepConfig = SWEEP,
    options: SweepOptions = OPTIONS,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> xr.Dataset:
    """Ablate every expert of every layer in every mode, and sum what changes over the tokens of each segment.

    Returns a dataset over `(mode, sequence, layer, expert)`: `kl`, sum over tokens of KL(p || p without the expert) of
    the next-token distribution in nats; `own`, the same over the tokens that select the expert; `loss`, growth of the
    loss summed over the `targets` tokens that have a next one; `selections`, `tokens`; `domain`, `lang` and `document`
    of each sequence. The token that opens a sequence is left alone, neither ablated nor counted: what is done to it
    reaches all text through attention. An expert that no text token selects has exactly 0. An ablation that makes the
    output NaN has NaN, and `failed` in the attributes counts them.

    Modes for which restarting could not be proven on this model run by whole passes; `fallback` in the attributes tells
    which and why, and `say` is told.

    Raises:
        CorpusError: no text; TraceError: a model that cannot be observed.
    """
    texts = passages(config)
    ids = encode(tokenizer, [p.text for p in texts], config.max_tokens)
    plan = Plan(model, ids, padding_token(tokenizer), config.modes, options)
    say(plan.describe())
    merged = plan.run(progress)
    found = dataset(merged, texts, [site.layer for site in plan.sites], config)
    fallback = json.dumps(dict(plan.settings.way.reasons))
    return found.assign_attrs(fallback=fallback, failed=int(np.isnan(merged["kl"]).sum()))


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
        way = Way({}, False, dict.fromkeys(modes, "asked for"))
        if not options.naive:
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
        source = self.model if self.options.engine.inside else self.options.source
        if source is None:
            raise ValueError("a sweep outside this process needs a model by name: give `source`")
        ranges = np.array_split([site.layer for site in self.sites], max(1, self.options.layer_shards))
        found = []
        for number, batch in reversed(list(enumerate(self.batches))):
            for part in ranges:
                if len(part):
                    settings = replace(self.settings, layers=tuple(map(int, part)))
                    weight = float(sum(len(self.ids[i]) for i in batch) * len(part))
                    ids = [self.ids[i] for i in batch]
                    key = f"{number:05d}-{part[0]:03d}-{part[-1]:03d}"
                    found.append(Job(key, weight, source, tuple(batch), ids, self.padding, settings))
        return found

    def run(self, progress: Callable[[float, float], None] = lambda done, total: None) -> Results:
        """Arrays of all shards, see `BatchEffects`, over all sequences and layers."""
        kept = self.options.folder
        with tempfile.TemporaryDirectory() if kept is None else nullcontext(kept) as folder:
            parts = list(finish(self.jobs(), Path(folder) / self.key, self.options.engine, progress))
        return merge(parts, len(self.ids), [site.layer for site in self.sites])

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
    width, vocabulary, size = config.hidden_size, config.vocab_size, torch_bytes(model)
    slots = max(site.top_k * site.heads for site in sites)
    states = config.num_hidden_layers + 2 + 4 * len(sites) + 3 * (len(modes) + 1) * slots
    each = (4 + size) * vocabulary + size * width * states
    fixed = 4 * (2 * BLOCK + 4 * ROWS * vocabulary) + 2048 * size * width * 3 * (slots + 4)
    return int(np.clip((memory * 1e9 - fixed) / each, 256, 4096))


def dataset(
    merged: dict[str, np.ndarray], texts: Sequence[Passage], layers: Sequence[int], config: SweepConfig
) -> xr.Dataset:
    """Arrays of `merge` with names and labels."""
    full = ("mode", "sequence", "layer", "expert")
    data: dict[str, Any] = {name: (full, merged[name]) for name in ("kl", "own", "loss")}
    data["selections"] = (full[1:], merged["selections"])
    data |= {name: ("sequence", merged[name]) for name in ("tokens", "targets")}
    data |= {name: ("sequence", np.array([getattr(p, name) for p in texts])) for name in ("domain", "lang", "document")}
    coords = {"mode": list(config.modes), "layer": list(layers), "expert": np.arange(merged["kl"].shape[3])}
    return xr.Dataset(data, coords, {"config": json.dumps(asdict(config), sort_keys=True)})
