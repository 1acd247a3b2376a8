"""What the token that opens a sequence would do to effects, if experts were ablated on it: a check beside the sweep."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...measure.output_change import kl_of_change
from ...models.passes import pad
from ...trace import Ablate, attach
from ...trace.proof import naive_logits
from .effects import FIRST


@torch.no_grad()
def opening_effects(
    model: PreTrainedModel, ids: Sequence[Sequence[int]], padding: int, count: int = 5, most: int = 16
) -> pd.DataFrame:
    """Experts that serve the opening token, ablated (zero) there alone by whole passes: the `count` with the largest
    effect on text.

    Args:
        ids: tokens of a few sequences, each behind the same opening token.
        most: experts that are tried, those with the largest gate weights on that token.

    Returns:
        `layer`, `expert`; in nats per text token, `opening` when it is ablated on the opening token alone, and `text`
        when it is on text alone, as in a sweep.
    """
    tokens, mask = (t.to(model.device) for t in pad(ids, padding))
    with attach(model) as trace:
        old = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    served: list[tuple[float, int, int]] = []
    for site in trace.sites:
        routing = trace.records[0].layers[site.layer]
        index, weight = (t[0, 0].flatten().tolist() for t in (routing.index, routing.weight))
        served += [(w, site.layer, e) for e, w in zip(index, weight, strict=True) if 0 <= e < site.num_experts]
    pairs = list(dict.fromkeys((layer, expert) for _, layer, expert in sorted(served, reverse=True)))[:most]
    text = mask != 0
    text[:, :FIRST] = False

    def effect(pair: tuple[int, int], positions: tuple[int, int | None]) -> float:
        new = naive_logits(model, tokens, mask, Ablate((pair,), positions=positions))
        return _mean_kl(old[text], new[text])

    rows: list[dict[str, Any]] = [{"layer": p[0], "expert": p[1], "opening": effect(p, (0, FIRST))} for p in pairs]
    rows = sorted(rows, key=lambda row: -row["opening"])[:count]
    return pd.DataFrame([{**row, "text": effect((row["layer"], row["expert"]), (FIRST, None))} for row in rows])


def _mean_kl(old: Tensor, new: Tensor) -> float:
    return float(kl_of_change(old.float().softmax(-1), (new - old).float()).kl.mean())
