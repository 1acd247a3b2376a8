"""What a sequence asks of the experts: how often each is selected."""

import numpy as np
from jaxtyping import Float, Int, Shaped


def slot_sums(
    index: Int[np.ndarray, "token slot"],
    document: Int[np.ndarray, "token"],
    documents: int,
    experts: int,
    values: Shaped[np.ndarray, "token slot"] | None = None,
) -> Float[np.ndarray, "document expert"]:
    """Sum of `values` over each document's tokens that selected each expert; their number without `values`.

    Args:
        index: expert in each slot, -1 for an empty slot; document: number of each token's document.
        documents, experts: how many there are.

    Raises:
        ValueError: an expert or document out of range; a value of a filled slot that is not finite.
    """
    filled = index >= 0
    if (index < -1).any() or (index >= experts).any() or (document < 0).any() or (document >= documents).any():
        raise ValueError(f"experts must lie in 0..{experts - 1} (-1: empty slot) and documents in 0..{documents - 1}")
    weights = None if values is None else np.asarray(values, np.float64)[filled]
    if weights is not None and not np.isfinite(weights).all():
        raise ValueError("a selected expert has a value that is not finite")
    cells = (document[:, None] * experts + index)[filled]
    sums = np.bincount(cells, weights, minlength=documents * experts)
    return sums.reshape(documents, experts).astype(np.float64)


def activation_frequency(
    selections: Shaped[np.ndarray, "segment *rest expert"], tokens: Shaped[np.ndarray, "segment"]
) -> Float[np.ndarray, "segment *rest expert"]:
    """Share of each segment's tokens that selected each expert, `a / L` of arXiv 2510.04694, eq. 3; within [0, 1].

    Raises:
        ValueError: a segment without tokens, or an expert selected by more tokens than there are.
    """
    tokens = np.asarray(tokens, np.float64)
    if not (tokens > 0).all():
        raise ValueError("a segment without tokens has no activation frequency")
    rate = np.asarray(selections, np.float64) / tokens.reshape(-1, *[1] * (selections.ndim - 1))
    if (rate > 1 + 1e-9).any():
        raise ValueError("an expert was selected by more tokens than the segment has")
    return np.asarray(rate)


def frequency_difference(
    data: Float[np.ndarray, "a *rest expert"], base: Float[np.ndarray, "b *rest expert"]
) -> Float[np.ndarray, "*rest expert"]:
    """Difference of mean activation frequencies, `data` minus `base` (arXiv 2510.04694, eq. 3); within [-1, 1].

    Segments count equally, whatever their length; both are `activation_frequency` over segments.

    Raises:
        ValueError: a side without segments.
    """
    if not (len(data) and len(base)):
        raise ValueError("both corpora need at least one segment")
    return np.asarray(np.mean(data, 0, dtype=np.float64) - np.mean(base, 0, dtype=np.float64))
