"""What the ablation of an expert reaches: the tokens that select it, those after them, and the change of the output."""

from torch import Tensor

from .continuation import CleanPass, WholePass


def touched(clean: CleanPass, layer: int, own: Tensor) -> Tensor:
    """`(n, pos)` tokens whose logits depend on what the experts of a layer do for the tokens `own`, of the same shape:
    these alone if no layer follows, else all from the first of them on."""
    return own if layer == len(clean.stack) - 1 else own.cumsum(1) > 0


def selecting(clean: CleanPass | WholePass, layer: int, experts: Tensor, rows: Tensor) -> Tensor:
    """`(n, pos)` tokens of the sequences `rows` `(n,)` on which the expert beside each, `(n,)`, is ablated: those that
    select it."""
    own = clean.index[layer][rows] == experts[:, None, None]
    return own.any(-1) & clean.acts[rows]


def spread(clean: CleanPass, layer: int, change: Tensor, experts: Tensor, rows: Tensor) -> Tensor:
    """`(n, row, d)` change of the experts' output in the sequences `rows` `(n,)` if the expert beside each, `(n,)`, is
    ablated where it may be.

    Args:
        change: `CleanPass.change` of the layer.
    """
    own = (clean.index[layer][rows] == experts[:, None, None]) & clean.acts[rows].unsqueeze(-1)
    parts = change.reshape(len(clean.ids), -1, *change.shape[1:])[rows]
    return (parts * own.reshape(*parts.shape[:3], 1)).sum(2)
