"""Go on with a pass from after any routed layer, with another output of its experts, without running what came before.

Nothing here knows a family's code: the model's own forward is called, in which the layers before are told to pass on
what they are given, the layer itself to give back its kept output, changed, and the head to look at chosen rows only.
Whether a model can be continued so is not read off its name but tried on it: see `mechanism.trace.proof`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .capture import Trace
from .contributions import experts_inputs, slot_outputs
from .edit import SiteEdit, run_edited
from .errors import InterventionError
from .interventions import Ablate
from .outputs import read_output
from .restart import Forward, decoder_layers, layer_outputs, one_position, replaced
from .sites import Site

Via = Literal["added", "layer"]


def _like(output: Any, hidden: Tensor, rows: Tensor) -> Any:
    """A layer's output with other hidden states, and of what else it holds for each sequence the part of `rows`."""
    if not isinstance(output, tuple):
        return hidden
    batch = len(output[0])
    own = [t[rows] if isinstance(t, Tensor) and t.ndim and len(t) == batch else t for t in output[1:]]
    return (hidden, *own)


def _from(mask: Tensor, first: int) -> Tensor:
    """Real tokens from a position on; padding is on the right."""
    return (mask != 0) & (torch.arange(mask.shape[1], device=mask.device) >= first)


class WholePass:
    """One unedited pass of a model that may not be continued: what comparing with it needs.

    Args:
        first: position of the first token on which experts are ablated.

    Attributes:
        ids, mask: `(batch, pos)`, padding on the right; logits: `(batch, pos, vocabulary)`;
        index: layer -> `(batch, pos, slot)` selected classes, the slots of all heads one after another;
        acts: `(batch, pos)` bool, the real tokens on which experts are ablated.
    """

    def __init__(self, model: nn.Module, ids: Tensor, mask: Tensor, first: int = 0) -> None:
        self.model, self.ids, self.mask, self.acts = model, ids, mask, _from(mask, first)
        with Trace(model) as trace, torch.no_grad():
            self.logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        routed = trace.records[0].layers
        self.index = {layer: routing.index.flatten(2).to(ids.device) for layer, routing in routed.items()}

    def forget(self, layer: int) -> None:
        """Nothing is kept."""


class CleanPass:
    """One unedited pass, kept so that the model can go on from after any of its routed layers.

    It holds the hidden states after every layer, what the experts of the routed layers received and gave back, and the
    logits: `(layers + 3 * routed layers) * d + vocabulary` numbers a token, and for each mode asked of `change`
    `slots * d` a token until `forget`.

    Args:
        model: in evaluation mode; ids, mask: `(batch, pos)`, padding on the right.
        sites: the model's routers.
        head: make the logits; without it, of the last position only where the model knows how to.
        first: position of the first token on which experts are ablated.

    Attributes:
        acts: `(batch, pos)` bool, the real tokens on which experts are ablated.
        logits: `(batch, pos, vocabulary)`; index: layer -> `(batch, pos, slot)` selected classes, the slots of all
            heads one after another.
        received: `(batch, pos, d)` what the head received.

    Raises:
        InterventionError: experts that are not called by index, or no head.
    """

    def __init__(
        self, model: nn.Module, ids: Tensor, mask: Tensor, sites: Sequence[Site], head: bool = True, first: int = 0
    ) -> None:
        self.model, self.ids, self.mask, self.first, self.acts = model, ids, mask, first, _from(mask, first)
        self.sites = {site.layer: site for site in sites}
        self.stack = list(decoder_layers(model))
        self.head: Any = model.get_output_embeddings()  # type: ignore[operator]
        if self.head is None:
            raise InterventionError(f"{type(model).__name__} has no output embeddings; its head cannot be found")
        self.received = torch.empty(0)
        self._asked: dict[int, tuple[tuple, dict]] = {}
        self._changes: dict[tuple[int, str], Tensor] = {}
        self._run(head)
        self.index = {layer: seen.index.reshape(*mask.shape, -1) for layer, seen in self._experts.items()}

    @torch.no_grad()
    def _run(self, head: bool) -> None:
        options = {"use_cache": False, **({} if head else one_position(self.model))}
        with (
            experts_inputs(self.sites.values()) as self._experts,
            layer_outputs(self.model, range(len(self.stack))) as self._out,
            ExitStack() as hooks,
        ):
            hooks.callback(self.head.register_forward_pre_hook(self._headed).remove)
            for layer, site in self.sites.items():
                hook = partial(self._routed, layer)
                hooks.callback(site.router.register_forward_pre_hook(hook, with_kwargs=True).remove)
            self.logits: Tensor = self.model(input_ids=self.ids, attention_mask=self.mask, **options).logits

    def _headed(self, module: nn.Module, args: tuple) -> None:
        self.received = args[0]

    def _routed(self, layer: int, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._asked[layer] = args, kwargs

    def hidden(self, layer: int) -> Tensor:
        """`(batch, pos, d)` hidden states after a layer."""
        out = self._out[layer]
        return out[0] if isinstance(out, tuple) else out

    def weight(self, layer: int) -> Tensor:
        """`(batch, pos, slot)` gate weights that the experts received."""
        return self._experts[layer].weight.reshape(self.index[layer].shape)

    def outputs(self, layer: int) -> Tensor:
        """`(row, slot, d)` unweighted outputs of the selected experts; several rows a token where there are heads."""
        key = (layer, "")
        if key not in self._changes:
            seen = self._experts[layer]
            with torch.no_grad():
                self._changes[key] = slot_outputs(self.sites[layer], seen.hidden, seen.index)
        return self._changes[key]

    def change(self, layer: int, mode: str, means: Tensor | None = None) -> Tensor:
        """`(row, slot, d)` by how much the experts' output changes if the expert in the slot is ablated, the others
        being as they are.

        Args:
            mode: of `Ablate`; means: `(class, d)` mean outputs for `mean`.

        Raises:
            InterventionError: the router cannot be run alone, for `reroute`; no means.
        """
        if (layer, mode) not in self._changes:
            with torch.no_grad():
                self._changes[layer, mode] = self._change(layer, mode, means)
        return self._changes[layer, mode]

    def _change(self, layer: int, mode: str, means: Tensor | None) -> Tensor:
        if mode == "reroute":
            return self._rerouted(layer)
        seen, outputs = self._experts[layer], self.outputs(layer)
        if mode == "zero":
            return -seen.weight.unsqueeze(-1).to(outputs) * outputs
        if means is None:
            raise InterventionError("mean ablation needs mean outputs")
        other = means.to(outputs).nan_to_num()[seen.index.clamp(0, len(means) - 1)]
        return seen.weight.unsqueeze(-1).to(outputs) * (other - outputs)

    def _rerouted(self, layer: int) -> Tensor:
        """The router's own rule, run once a slot with that slot's expert masked."""
        site, seen = self.sites[layer], self._experts[layer]
        if site.kind != "standard":
            raise InterventionError(f"{site.name}: its router does not select by itself, it cannot be run alone")
        args, kwargs = self._asked[layer]
        parts = []
        for slot in range(seen.index.shape[-1]):
            own = seen.index[:, slot]
            present = [e for e in own.unique().tolist() if e < site.num_experts]
            edit = SiteEdit(site, [Ablate(((layer, e),), mode="reroute") for e in present], [own == e for e in present])
            output, tap = run_edited(site, edit, lambda tap: site.router.forward(*args, **kwargs))
            edit.settle(edit.flags)
            index, weight = read_output(site, output, tap)
            changed = site.experts.forward(seen.hidden, index.to(seen.index.dtype), weight.to(seen.weight.dtype))
            parts.append((changed - seen.output).reshape(len(own), -1))
        return torch.stack(parts, 1)

    def forget(self, layer: int) -> None:
        """Free what was kept for the changes of a layer."""
        self._changes = {key: value for key, value in self._changes.items() if key[0] != layer}

    @torch.no_grad()
    def go_on(
        self, layer: int, rows: Tensor, change: Tensor, chosen: Tensor, via: Via = "added", head: bool = True
    ) -> Tensor:
        """What the model says at chosen tokens when the experts' output of a layer is another one.

        Args:
            rows: `(n,)` sequences of the batch, repeated as one likes; change: `(n, ...)` what is added to the experts'
                output there; chosen: `(n, pos)` tokens to look at.
            via: `added`: what is added to the experts' output is added to the layer's; `layer`: the layer runs again.
            head: run the head; without it, give back what it would receive.

        Returns:
            `(token, vocabulary)`, or `(token, d)` without the head.
        """
        taken: list[Tensor] = []
        run = self.head.forward

        def look(hidden: Tensor) -> Tensor:
            taken.append(hidden.reshape(-1, hidden.shape[-1])[chosen.reshape(-1)])
            return run(taken[0].unsqueeze(0)) if head else hidden.new_zeros(1, 1, 1)

        patches = [*self._until(layer, rows, change, via), (self.head, look)]
        with replaced(patches):
            logits = self.model(input_ids=self.ids[rows], attention_mask=self.mask[rows], use_cache=False).logits
        return logits[0] if head else taken[0]

    def _until(self, layer: int, rows: Tensor, change: Tensor, via: Via) -> list[tuple[nn.Module, Forward]]:
        """The layers up to the changed one, as they are to behave."""
        last = layer if via == "added" else layer - 1
        patches: list[tuple[nn.Module, Forward]] = [
            (self.stack[i], partial(self._pass_on, i, rows)) for i in range(last)
        ]
        if via == "layer":
            output = self._experts[layer].output
            each = output.reshape(len(self.ids), -1, output.shape[-1])[rows]
            given = (each + change.reshape(each.shape).to(each)).reshape(-1, *output.shape[1:])
            patches.append((self.sites[layer].experts, lambda *args, **kwargs: given))
        if last >= 0:
            kept = self.hidden(last)[rows]
            hidden = kept + change.reshape(kept.shape).to(kept) if via == "added" else kept
            patches.append((self.stack[last], lambda *args, **kwargs: _like(self._out[last], hidden, rows)))
        return patches

    def _pass_on(self, layer: int, rows: Tensor, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return _like(self._out[layer], hidden_states, rows)
