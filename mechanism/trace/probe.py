"""What contracts are tried on, a model and what it does on a small random batch, and what they say it with."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .capture import Trace
from .errors import AttachError, ContractError
from .inner import RELATIVE
from .interventions import Intervention
from .records import Record
from .rules import Rule, infer_rule
from .sites import Site, find_sites


class Probe:
    """A model and what it does on a small random batch: two rows of twelve tokens, the second with four of padding.

    Args:
        model: switched to evaluation mode while probed.

    Raises:
        AttachError: the model fails without anything being watched.
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
        try:
            self.bare = self.logits()
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise AttachError(
                f"{type(model).__name__} fails on a plain pass of random tokens, before anything is watched "
                f"({reason}): mend that; an adapter around a router may be why: merge it (peft: `merge_and_unload`)"
            ) from error
        self.record, self.observed = self.captured(), self.edited

    def logits(self) -> Tensor:
        """Logits of the model on the probe batch."""
        return self.said(input_ids=self.ids, attention_mask=self.mask)

    @torch.no_grad()
    def said(self, **given: Tensor) -> Tensor:
        """The model's logits, or what its last layer gives if it has no head (a text tower)."""
        output = self.model(use_cache=False, **given)
        return output.logits if hasattr(output, "logits") else output.last_hidden_state

    def captured(self, interventions: Sequence[Intervention] = ()) -> Record:
        """The routing of one traced pass."""
        with Trace(self.model, interventions) as trace:
            self.edited = self.logits()
        return trace.records[0]

    def first(self, site: Site) -> int:
        """An expert that the probe batch selects in a layer: the one most often chosen."""
        index = self.record.layers[site.layer].index.reshape(-1)
        return int(index[(index >= 0) & (index < site.num_experts)].bincount().argmax())

    def targets(self) -> tuple[tuple[int, int], ...]:
        """One selected expert a layer."""
        return tuple((s.layer, self.first(s)) for s in self.sites)

    def implementations(self) -> Iterator[str]:
        """Each of transformers' experts implementations, the model set to it meanwhile; or `own`, as it is."""
        switch = self.model.set_experts_implementation
        before = getattr(getattr(self.model, "config", None), "_experts_implementation", None)
        try:
            switch("grouped_mm")  # type: ignore[operator]
        except ValueError:
            yield "own"
            return
        try:
            for name in ("eager", "batched_mm", "grouped_mm"):
                switch(name)  # type: ignore[operator]
                yield name
        finally:
            switch(before or "grouped_mm")  # type: ignore[operator]

    def rules(self) -> dict[int, Rule]:
        """Observed rule of every layer."""
        return {layer: infer_rule(routing) for layer, routing in self.record.layers.items()}


class NotApplicable(Exception):
    """The contract says nothing about this model; the reason is reported."""


def expect(condition: bool, message: str) -> None:
    """Raise a `ContractError` with the message unless the condition holds."""
    if not condition:
        raise ContractError(message)


def identical(a: Tensor, b: Tensor, what: str) -> None:
    """Logits are equal bit for bit."""
    expect(bool(torch.equal(a, b)), f"{what} changes the model's logits by up to {float((a - b).abs().max()):.3g}")


def relative_error(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((a.float() - b.float()).abs().max()) / max(float(b.float().abs().max()), 1e-6)


def near(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether the relative error is within a tolerance."""
    return relative_error(a, b) <= tolerance


def close(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    """The relative error is within a tolerance."""
    expect(near(a, b, tolerance), f"{what}: relative error {relative_error(a, b):.2g} is over {tolerance:g}")
