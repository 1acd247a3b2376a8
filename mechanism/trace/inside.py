"""Inside the experts of a model's passes: streaming statistics by layer and expert, and chosen tokens in full."""

import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from .errors import CaptureError
from .inner import Expert, Received, opener
from .inside_values import VALUES, Full, added, means, measured, summed
from .passes import Pass, TokenMask
from .seam import Routing
from .sites import Site
from .sums import named_by_content, plain


class Inside:
    """What to look at inside experts, and what was seen: `with attach(model, inside=inside): model(...)`.

    Gate and up are the two projections of an expert's input, activation is what its down projection receives, output
    what it gives, contribution the output times its weight, as it was used, interventions included. (Llama 4 weighs the
    input: there output and contribution are the same.) Padding is never looked at. The statistics do not grow with
    tokens. All of it is computed beside the pass, which costs what the experts cost once more.

    Args:
        tokens: those to keep in full: pairs (sequence, position); a mask `(batch, pos)`; or a function that makes
            one of the token ids. Sequences are the rows of all passes that begin texts, one pass after another; those
            that go on from a cache keep their row (beams change rows: use a function). Positions as for interventions.
        threshold: a unit is silent where its activation is at most this share of the token's largest.
        statistics: sum over all tokens; without, only the chosen ones are computed.
        first: position of the first token of a text that the statistics count; 1 leaves the token that opens it out.

    Raises:
        CaptureError: a threshold that is no share, tokens that are none of the three, or nothing to look at.
    """

    def __init__(
        self,
        tokens: Iterable[Any] | TokenMask | None = None,
        threshold: float = 0.01,
        statistics: bool = True,
        first: int = 0,
    ) -> None:
        if not 0 <= threshold < 1:
            raise CaptureError(f"the threshold of silent units is a share of the largest activation, got {threshold!r}")
        if tokens is None and not statistics:
            raise CaptureError("without statistics and without tokens there is nothing to look at inside experts")
        self.mask = tokens if isinstance(tokens, Tensor) or callable(tokens) else None
        self.pairs = _pairs(tokens) if self.mask is None and tokens is not None else ()
        self.threshold, self.statistics, self.first = threshold, statistics, first
        self.layers: tuple[int, ...] = ()
        self.provenance: dict = {}
        self.sums: dict[int, dict[str, Tensor]] = {}
        self.hidden: dict[int, tuple[float, float]] = {}
        self.kept: dict[int, list[xr.Dataset]] = {}
        self._first = self._rows = 0
        self._at: Pass | None = None
        self.discard()

    def hook(self, model: nn.Module, sites: Sequence[Site], provenance: Mapping, current: Any) -> list[Any]:
        """Handles of hooks on a model's experts and, for statistics, on its decoder layers.

        Args:
            current: gives the pass and the routing of a site while its experts run.

        Raises:
            InterventionError: see `opener`; CaptureError: this was begun with another model or setting.
        """
        layers, origin = tuple(s.layer for s in sites), plain(provenance)
        if self.layers and (self.layers, named_by_content(self.provenance)) != (layers, named_by_content(origin)):
            raise CaptureError("this look inside was begun with another model or setting; use a fresh Inside")
        self.layers, self.provenance = layers, origin
        handles = []
        for site, open_ in [(site, opener(site)) for site in sites]:

            def seen(module: nn.Module, args: tuple, kwargs: dict, output: Tensor, site=site, open_=open_) -> None:
                self._seen(site, current(site), (args, kwargs, output), open_())

            handles.append(site.experts.register_forward_hook(seen, with_kwargs=True))
        stack = model.get_submodule(sites[0].stack_path) if self.statistics else nn.ModuleList()
        for number, layer in enumerate(stack.children()):

            def after(module: nn.Module, args: tuple, output: Any, number=number) -> None:
                self._hidden_after(number, output[0] if isinstance(output, tuple) else output)

            handles.append(layer.register_forward_hook(after))
        return handles

    def begin(self, at: Pass) -> None:
        """A pass begins.

        Raises:
            CaptureError: a row of several texts, or of unknown origin, where (sequence, position) names no one token.
            InterventionError: a mask of another shape.
        """
        self.discard()
        self._at = at
        chosen = torch.zeros_like(at.mask)
        if self.mask is not None:
            chosen = at.named("tokens", {"tokens": self.mask}) & at.mask
        first = self._rows if at.phase == "prefill" else self._first
        if self.pairs and at.phase == "decode" and first + at.mask.shape[0] != self._rows:
            raise CaptureError("a pass goes on with other rows than began; choose tokens inside experts by a mask")
        for sequence, position in self.pairs:
            if 0 <= sequence - first < at.mask.shape[0]:
                row = sequence - first
                found = at.mask[row] & (at.position[row] == position)
                chosen[row] |= found
                if int(found.sum()) > 1:
                    raise CaptureError(
                        f"sequence {sequence} holds several texts; choose tokens inside experts by a mask"
                    )
        self._chosen, self._wanted = chosen, bool(chosen.any())
        self._sequence = first + torch.arange(at.mask.shape[0])

    @torch.no_grad()
    def _seen(self, site: Site, routing: Routing, call: tuple[tuple, dict, Tensor], expert: Expert) -> None:
        at, place = self._at, routing.index.device
        if at is None or not (self.statistics or self._wanted):
            return
        chosen = site.rows(self._chosen.reshape(-1).to(place))
        counted = at.mask & (at.position >= self.first) & self.statistics
        counts = site.rows(counted.reshape(-1).to(place))
        kept = counts | chosen
        seen, counts = Received(site, routing, *call, kept=kept), counts[kept]
        full = Full(seen, chosen[kept].cpu()) if self._wanted else None
        table = torch.full((len(VALUES), seen.index.numel()), math.nan, device=place)
        units: dict[int, Tensor] = {}
        for number, slots, parts, contribution in seen.slots_by_expert(expert):
            if full is not None:
                full.add(slots, parts, contribution)
            if parts is not None and self.statistics:
                table[:, slots] = measured(parts, contribution, self.threshold)
                units[number] = units.get(number, 0) + parts[2][counts[slots // seen.slots]].abs().double().sum(0)
        if self.statistics:
            table = table[:, counts.repeat_interleave(seen.slots)].double().cpu()
            self._sums[site.layer] = summed(seen.index[counts].cpu(), table, units, site.num_experts)
        if full is not None:
            row, column = (t.cpu() for t in self._chosen.nonzero(as_tuple=True))
            named = {"sequence": self._sequence[row], "position": at.position.cpu()[row, column]}
            self._kept[site.layer] = full.dataset(site, named, at.phase)

    @torch.no_grad()
    def _hidden_after(self, layer: int, hidden: Any) -> None:
        """Largest absolute value and median of hidden states; NaN where a layer gives none by token."""
        at = self._at
        if at is None:
            return
        if not isinstance(hidden, Tensor) or hidden.shape[:2] != at.mask.shape:
            self._states[layer] = torch.full((2,), math.nan)
            return
        size = hidden.detach()[at.mask.to(hidden.device)].float().abs()
        self._states[layer] = torch.stack([size.amax(), size.median()])

    def commit(self) -> None:
        """Count what the pass left, all of it; called when it ended without an error."""
        for layer, own in self._sums.items():
            self.sums[layer] = added(self.sums[layer], own) if layer in self.sums else own
        for layer, state in self._states.items():
            found = tuple(state.tolist())
            if layer not in self.hidden or not found[0] <= self.hidden[layer][0]:
                self.hidden[layer] = found
        for layer, dataset in self._kept.items():
            self.kept.setdefault(layer, []).append(dataset)
        if self._at is not None and self._at.phase == "prefill":
            self._first, self._rows = self._rows, self._rows + self._at.mask.shape[0]
        self.discard()

    def discard(self) -> None:
        """Forget a pass that did not end."""
        self._at = None
        self._sums: dict[int, dict[str, Tensor]] = {}
        self._states: dict[int, Tensor] = {}
        self._kept: dict[int, xr.Dataset] = {}

    def dataset(self) -> xr.Dataset:
        """Statistics over `(layer, expert)`; NaN for experts that no token selected, or that a layer does not have.

        `norm_gate`, `norm_up`, `norm_activation`, `norm_output`, `norm_contribution`: mean L2 norm over the tokens that
        selected the expert, and `..._max` the largest; `sparsity` mean share of silent units; `hoyer` mean of
        (sqrt(n) - L1 / L2) / (sqrt(n) - 1) of the activation (Hoyer 2004), 1 where all units are 0; `peak_activation`
        and `peak_output` largest absolute value (of super experts, arXiv 2507.23279); `selections`;
        `activity` `(layer, expert, unit)` mean absolute activation; `expert_activity` mean over all `tokens` of a layer
        of `|weight| ||output||` (arXiv 2604.02178). `hidden_peak` `(decoder_layer,)` is the largest absolute hidden
        state after a layer, `hidden_median` the median of the pass that had it.

        Raises:
            CaptureError: there are none.
        """
        if not self.sums:
            raise CaptureError("no pass was looked at inside experts: run the model in the block, with statistics=True")
        layers = [means(self.sums[layer]) for layer in self.layers]
        found = xr.concat(layers, xr.Variable("layer", list(self.layers)), join="outer")
        states = np.array([self.hidden[layer] for layer in sorted(self.hidden)])
        hidden = {f"hidden_{n}": ("decoder_layer", states[:, i]) for i, n in enumerate(("peak", "median"))}
        header = {
            "provenance": json.dumps(self.provenance, sort_keys=True),
            "threshold": self.threshold,
            "first": self.first,
        }
        return found.assign(hidden).assign_coords(decoder_layer=sorted(self.hidden)).assign_attrs(header)

    def at(self, layer: int) -> xr.Dataset:
        """Chosen tokens of a layer in full, in the order of the passes: `gate`, `up`, `activation` `(token, slot,
        unit)`, `output`, `contribution` `(token, slot, d)`, `expert` and `weight` `(token, slot)`; with `sequence`,
        `position` and `phase` of each token, and `head` where a router has several rows a token. A class that computes
        nothing has a contribution alone.

        Raises:
            CaptureError: no token was kept, or not all that were named.
        """
        if layer not in self.kept:
            raise CaptureError(f"no token was kept inside the experts of layer {layer}; layers are {self.layers}")
        found = xr.concat(self.kept[layer], "token")
        seen = set(zip(found["sequence"].values.tolist(), found["position"].values.tolist(), strict=True))
        if missing := [pair for pair in self.pairs if pair not in seen]:
            raise CaptureError(f"no pass had the (sequence, position) {missing}; nothing is known inside experts there")
        return found

    def merge(self, other: "Inside") -> "Inside":
        """Statistics of both, for text in shards; tokens in full are not merged.

        Raises:
            CaptureError: of different models or settings, or one without statistics.
        """
        same = [(i.layers, named_by_content(i.provenance), i.threshold, i.first, bool(i.sums)) for i in (self, other)]
        if same[0] != same[1] or not self.sums:
            raise CaptureError("looks inside experts of different models or settings cannot be merged")
        total = Inside(threshold=self.threshold, first=self.first)
        total.layers, total.provenance = self.layers, self.provenance
        total.sums = {layer: added(own, other.sums[layer]) for layer, own in self.sums.items()}
        total.hidden = {layer: max(state, other.hidden[layer]) for layer, state in self.hidden.items()}
        return total


def _pairs(tokens: Any) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((operator.index(sequence), operator.index(position)) for sequence, position in tokens)
    except (TypeError, ValueError):
        raise CaptureError(
            f"tokens inside experts are (sequence, position) pairs, a mask or a function, got {tokens!r}"
        ) from None
