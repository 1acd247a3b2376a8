"""Within-sequence consistency: do the tokens of a sequence choose the same experts?"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int


def selected(index: Int[np.ndarray, "*batch token slot"], experts: int) -> Bool[np.ndarray, "*batch token expert"]:
    """Top-k sets as membership; -1 is an empty slot.

    Raises:
        ValueError: an expert out of range.
    """
    if (index < -1).any() or (index >= experts).any():
        raise ValueError(f"experts must lie in 0..{experts - 1}, or be -1 for an empty slot")
    return np.asarray((index[..., None] == np.arange(experts)).any(-2))


def jaccard(
    first: Bool[np.ndarray, "*batch a expert"], second: Bool[np.ndarray, "*batch b expert"]
) -> Float[np.ndarray, "*batch a b"]:
    """Jaccard similarity of every set of the first with every set of the second; two empty sets give NaN."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    shared = a @ b.swapaxes(-1, -2)
    union = a.sum(-1)[..., :, None] + b.sum(-1)[..., None, :] - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1), np.nan))


@dataclass(frozen=True)
class Consistency:
    """Mean Jaccard similarity of the top-k sets of two tokens of a sequence, within [0, 1].

    arXiv 2510.04694 reports this quantity; its pairing of tokens could not be recovered, so both stand here.

    Attributes:
        pairing: `all` unordered pairs of distinct tokens, or `adjacent` ones only. Adjacent pairs are a larger share
            of all pairs in a short sequence: compare languages at equal length, or with both.
    """

    pairing: Literal["all", "adjacent"] = "all"

    def __call__(self, chosen: Bool[np.ndarray, "*batch token expert"]) -> Float[np.ndarray, "*batch"]:
        """Mean over the pairs of one sequence, for each leading axis (layers); see `selected`.

        Raises:
            ValueError: fewer than two tokens, or a token without experts.
        """
        tokens = chosen.shape[-2]
        if tokens < 2:
            raise ValueError("consistency needs a sequence of at least two tokens")
        if not chosen.any(-1).all():
            raise ValueError("a token without experts has no consistency with others")
        rows, columns = np.triu_indices(tokens, 1)
        if self.pairing == "adjacent":
            rows, columns = np.arange(tokens - 1), np.arange(1, tokens)
        return np.asarray(jaccard(chosen, chosen)[..., rows, columns].mean(-1))
