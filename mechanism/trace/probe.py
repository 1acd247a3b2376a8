"""A model and what it does on a small random batch: what contracts are tried on."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .capture import Trace
from .interventions import Intervention
from .records import Record
from .rules import Rule, infer_rule
from .sites import Site, find_sites

RELATIVE = {torch.float32: 1e-4, torch.float64: 1e-9, torch.bfloat16: 4e-2, torch.float16: 1e-2}


class Probe:
    """A model and what it does on a small random batch: two rows of twelve tokens, the second with four of padding.

    Args:
        model: switched to evaluation mode while probed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.sites = model, find_sites(model)
        vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        first = next(model.parameters())
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(min(3, vocabulary - 1), vocabulary, (2, 12), generator=generator).to(first.device)
        self.mask = torch.ones_like(self.ids)
        self.tolerance = RELATIVE[first.dtype]
        # Between passes of other shapes errors pass through all layers.
        self.loose = max(4 * self.tolerance, 1e-3)
        self.bare = self.logits()
        self.record = self.captured()

    def logits(self, mask: Tensor | None = None, ids: Tensor | None = None) -> Tensor:
        """Logits of the model on the probe batch."""
        ids = self.ids if ids is None else ids
        mask = torch.ones_like(ids) if mask is None else mask
        with torch.no_grad():
            return self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits

    def traced(self, interventions: Sequence[Intervention] = (), **options: Any) -> Trace:
        """A trace without checks."""
        return Trace(self.model, interventions, **options)

    def captured(self, interventions: Sequence[Intervention] = (), **options: Any) -> Record:
        """The routing of one traced pass."""
        with self.traced(interventions, **options) as trace:
            self.edited = self.logits()
        return trace.records[0]

    def first(self, site: Site) -> int:
        """An expert that the probe batch selects in a layer: the one most often chosen."""
        index = self.record.layers[site.layer].index.reshape(-1)
        return int(index[(index >= 0) & (index < site.num_experts)].bincount().argmax())

    def targets(self) -> tuple[tuple[int, int], ...]:
        """One selected expert a layer."""
        return tuple((s.layer, self.first(s)) for s in self.sites)

    def rules(self) -> dict[int, Rule]:
        """Observed rule of every layer."""
        return {
            layer: infer_rule(r.logits.flatten(0, -2), r.index.flatten(0, -2), r.weight.flatten(0, -2))
            for layer, r in self.record.layers.items()
        }
