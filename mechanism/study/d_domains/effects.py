"""What ablating each expert does to the output of a batch: divergence and loss, by restarts or by whole passes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...measure.output_change import kl_of_change, loss_change, pick
from ...trace import Ablate, CaptureError, Site, find_sites
from ...trace.continuation import CleanPass, WholePass
from ...trace.proof import Way, naive_logits
from ...trace.reach import selecting, spread, touched

BLOCK = 2**23 * 3 // 2  # logits that are made at once: larger products are faster
FIRST = 1  # position of the first token that is ablated and counted: the one that opens a sequence is left alone
ROWS = 64  # rows of them that are compared at once: these stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Settings:
    """How a batch is swept.

    Attributes:
        modes: of `Ablate`; means: layer -> `(class, d)` mean outputs for `mean`.
        way: how the model can be continued; modes that it does not hold are run by whole passes.
        layers: routed layers to ablate, all without it.
        fold: tokens that are continued together; the sequences of several experts fill them up.
        keep: keep the divergence of every token.
    """

    modes: tuple[str, ...] = ("zero",)
    means: Mapping[int, Tensor] | None = field(default=None, repr=False)
    way: Way = Way({}, False, {})
    layers: tuple[int, ...] | None = None
    fold: int = 2048
    keep: bool = False


@dataclass(frozen=True, eq=False)
class BatchEffects:
    """Sums over the text tokens of each sequence: the one that opens it is neither ablated nor counted.

    Attributes:
        kl, own, loss: `(mode, sequence, layer, expert)`: divergence of the next-token distribution, the same over the
            tokens that select the expert only, and growth of the loss over tokens that have a next one. In nats.
        selections: `(sequence, layer, expert)` tokens that select the expert; tokens, targets: `(sequence,)` tokens,
            and those that have a next one.
        token_kl: `(mode, sequence, pos, layer, expert)` float32, the opening token at 0, NaN for padding; if kept.
    """

    kl: np.ndarray
    own: np.ndarray
    loss: np.ndarray
    selections: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    token_kl: np.ndarray | None = None


class BatchSweep:
    """One batch, passed clean, and every expert ablated on its text: the token that opens a sequence is left alone.

    Args:
        model: in evaluation mode; ids, mask: `(batch, pos)`, padding on the right.
    """

    def __init__(self, model: nn.Module, ids: Tensor, mask: Tensor, settings: Settings) -> None:
        self.settings, self.sites = settings, find_sites(model)
        self.clean = (
            CleanPass(model, ids, mask, self.sites, first=FIRST)
            if settings.way.via
            else WholePass(model, ids, mask, FIRST)
        )
        self.layers = [s for s in self.sites if settings.layers is None or s.layer in settings.layers]
        self.real = mask != 0
        self.text = self.clean.acts
        self.target = F.pad(ids[:, 1:], (0, 1))
        self.scored = self.text & F.pad(self.real[:, 1:], (0, 1))
        # Products with the head's weights of what changed: in float32 as exact as logits, and smaller.
        self.plain = settings.way.plain and self.clean.logits.dtype == torch.float32
        self.old = self.clean.logits.float().softmax(-1)
        if self.plain and set(settings.modes) <= set(settings.way.via):
            self.clean.logits = self.clean.logits[:0]
        self._allocate()

    def _allocate(self) -> None:
        experts = max(site.num_experts for site in self.sites)
        shape = (len(self.settings.modes), len(self.real), len(self.layers), experts)
        self.sums = {name: np.zeros(shape) for name in ("kl", "own", "loss")}
        self.selections = np.zeros(shape[1:], dtype=np.int64)
        self.token_kl: np.ndarray | None = None
        if self.settings.keep:
            blank = np.where(self.real.cpu().numpy(), 0, np.nan)[None, :, :, None, None]
            full = (*shape[:2], self.real.shape[1], *shape[2:])
            self.token_kl = np.broadcast_to(blank, full).astype(np.float32)

    @torch.no_grad()
    def run(self, experts: Mapping[int, Sequence[int]] | None = None, where: np.ndarray | None = None) -> BatchEffects:
        """Ablate every expert, or those named by layer; an expert that no token selects is 0 without being run.

        Args:
            where: `(sequence, layer, expert)` bool: ablate each expert in these sequences only.
        """
        for at, site in enumerate(self.layers):
            index = self.clean.index[site.layer]
            count = torch.stack([((index == e).any(-1) & self.text).sum(1) for e in range(site.num_experts)])
            self.selections[:, at, : site.num_experts] = count.T.cpu().numpy()
            wanted = range(site.num_experts) if experts is None else experts.get(site.layer, ())
            if where is not None:
                count = count * torch.as_tensor(where[:, at, : site.num_experts].T, device=count.device)
            pairs = [(e, int(s)) for e in wanted for s in count[e].nonzero()[:, 0]]
            if pairs:
                for number, mode in enumerate(self.settings.modes):
                    run = self._restart if mode in self.settings.way.via else self._naive
                    run(site, (number, at), mode, pairs)
            self.clean.forget(site.layer)
        sizes = self.text.sum(1).cpu().numpy(), self.scored.sum(1).cpu().numpy()
        return BatchEffects(**self.sums, selections=self.selections, tokens=sizes[0], targets=sizes[1],
                            token_kl=self.token_kl)  # fmt: skip

    def _restart(self, site: Site, cell: tuple[int, int], mode: str, pairs: list[tuple[int, int]]) -> None:
        clean, layer = self.clean, site.layer
        assert isinstance(clean, CleanPass)
        means = self.settings.means
        change = clean.change(layer, mode, None if means is None else means[layer])
        for experts, rows in self._folds(pairs):
            own = selecting(clean, layer, experts, rows)
            chosen = touched(clean, layer, own) & self.real[rows]
            found = clean.go_on(
                layer, rows, spread(clean, layer, change, experts, rows), chosen, self.settings.way.via[mode],
                head=not self.plain,
            )  # fmt: skip
            self._add(cell, experts, rows, own, chosen, found)

    def _folds(self, pairs: list[tuple[int, int]]) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, self.settings.fold // self.real.shape[1])
        each = torch.tensor(pairs, device=self.real.device)
        for part in each.split(size):
            yield part[:, 0], part[:, 1]

    def _naive(self, site: Site, cell: tuple[int, int], mode: str, pairs: list[tuple[int, int]]) -> None:
        clean = self.clean
        rows = torch.arange(len(self.real), device=self.real.device)
        for expert in dict.fromkeys(e for e, _ in pairs):
            edit = Ablate(((site.layer, expert),), mode=mode, positions=(FIRST, None))  # type: ignore[arg-type]
            try:
                logits = naive_logits(clean.model, clean.ids, clean.mask, edit, self.settings.means)[self.real]
            except CaptureError as error:
                if "NaN" not in str(error):
                    raise
                logits = torch.full_like(self.old[self.real], torch.nan)
            experts = torch.full_like(rows, expert)
            own = selecting(clean, site.layer, experts, rows)
            self._add(cell, experts, rows, own, self.real, logits, whole=True)

    def _add(
        self, cell: tuple[int, int], experts: Tensor, rows: Tensor, own: Tensor, chosen: Tensor, found: Tensor,
        whole: bool = False,
    ) -> None:  # fmt: skip
        """Count what was found at the chosen tokens of the sequences `rows`, with the expert beside each ablated."""
        item, pos = chosen.nonzero(as_tuple=True)
        at = rows[item], pos
        kl, loss = self._compare(at, found, plain=self.plain and not whole)
        text, scored = self.text[at], self.scored[at]
        parts = {"kl": kl.where(text, 0), "own": kl.where(text & own[item, pos], 0), "loss": loss.where(scored, 0)}
        mode, layer = cell
        sequence, expert = rows.cpu().numpy(), experts.cpu().numpy()
        for name, values in parts.items():
            sums = torch.zeros(len(rows), dtype=torch.float64, device=kl.device).index_add_(0, item, values)
            self.sums[name][mode, sequence, layer, expert] = sums.cpu().numpy()
        if self.token_kl is not None:
            where = (mode, at[0].cpu().numpy(), pos.cpu().numpy(), layer, expert[item.cpu().numpy()])
            self.token_kl[where] = kl.cpu().numpy()

    def _compare(self, at: tuple[Tensor, Tensor], found: Tensor, plain: bool) -> tuple[Tensor, Tensor]:
        """Divergence and growth of the loss, `(token,)` float64 each, some rows at a time."""
        parts = []
        numbers = at[0] * self.real.shape[1] + at[1]
        old, targets = self.old.flatten(0, 1), self.target.flatten()
        before = (self.clean.received if plain else self.clean.logits).flatten(0, 1)  # type: ignore[union-attr]
        block = max(ROWS, BLOCK // old.shape[-1])
        for own, new in zip(numbers.split(block), found.split(block), strict=True):
            changes = new.float() - before[own].float()
            if plain:
                changes = F.linear(changes, self.clean.head.weight)  # type: ignore[union-attr]
            for part, change in zip(own.split(ROWS), changes.split(ROWS), strict=True):
                target = pick(change, targets[part])
                changed = kl_of_change(old[part], change)
                parts.append((changed.kl, loss_change(changed, target)))
        kl, loss = zip(*parts, strict=True)
        return torch.cat(kl), torch.cat(loss)
