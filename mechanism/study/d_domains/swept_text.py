"""What the text of a sweep shows of a model beside the sweep itself, and its record: routing of every token, mean
outputs of experts, and experts taken from single tokens."""

from pathlib import Path

import numpy as np
import xarray as xr
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...models.load import resolve
from ...models.passes import encode, padded_batches, padding_token, routed_tokens
from ...trace import expert_means
from ..base.study import Study
from .domain_text import SWEEP, SweepConfig, passages
from .driver_experts import Swept
from .effects import FIRST
from .seeds import recorded_of
from .single_tokens import PROBES, probe_tokens
from .sweep import record_key

STUDY = "text of a sweep"


def observe(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SweepConfig = SWEEP) -> xr.Dataset:
    """Of every text token the `sequence` of the sweep that it is in, its `place` there (0 first), the `length` of that
    in text tokens, its `id`, and the experts in its slots, `index` over `(token, layer, slot)`, -1 where a slot holds
    none; `mean_output` of each expert over the tokens that select it, `(layer, expert, d)`; and `probe_tokens` under
    `probe_NAME`, where the model can be continued.

    Raises:
        CorpusError, TraceError: see `sweep`.
    """
    ids = encode(tokenizer, [p.text for p in passages(config)], config.max_tokens)
    padding = padding_token(tokenizer)
    routed = routed_tokens(model, ids, padding)
    batches = (
        {"input_ids": t, "attention_mask": m, "use_cache": False} for _, t, m in padded_batches(model, ids, padding)
    )
    means, experts = expert_means(model, batches, FIRST), routed.experts
    outputs = np.stack([means[layer][:experts].float().cpu().numpy() for layer in routed.layers])
    data = {
        "sequence": ("token", routed.sequence), "place": ("token", routed.place), "length": ("token", routed.length),
        "id": ("token", routed.token), "index": (("token", "layer", "slot"), routed.index.astype(np.int16)),
        "mean_output": (("layer", "expert", "d"), outputs),
    }  # fmt: skip
    found = xr.Dataset(data, {"layer": list(routed.layers)})
    probes = probe_tokens(model, ids, padding, PROBES, config.seed)
    return found if probes is None else found.merge(probes.rename({name: f"probe_{name}" for name in probes.data_vars}))


def _address(spec: str, dtype: str, config: SweepConfig) -> tuple[dict, str]:
    """What the record is found by: the sweep's own key, but for its name and what only ablation needs."""
    key, data = record_key(spec, config, dtype)
    return {**{name: value for name, value in key.items() if name not in ("modes", "means")}, "study": STUDY}, data


def study(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    swept: Swept,
    spec: str,
    dtype: str = "float32",
    profile: str = "auto",
) -> xr.Dataset:
    """`observe` for the text of a sweep: recorded beside a recorded sweep under the profile `full`, read from there if
    it is there, computed at once otherwise.

    Args:
        spec, dtype: of the model, for the address of its record.
    """

    def seen() -> xr.Dataset:
        return observe(model, tokenizer, swept.config).assign_attrs(name=Path(resolve(spec)).name)

    if "record" not in swept.found.attrs:
        return seen()
    asked = Study(*_address(spec, dtype, swept.config), seen, seen, f"mechanism sweep {spec}")
    return asked.result("full" if profile == "full" else "auto")


def others(spec: str, dtype: str = "float32", config: SweepConfig = SWEEP) -> dict[str, xr.Dataset]:
    """The records of the other training seeds, by name."""
    return recorded_of(spec, *_address(spec, dtype, config))
