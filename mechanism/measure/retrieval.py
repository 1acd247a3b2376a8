"""Parallel retrieval: is a sentence's translation its nearest neighbour?"""

import numpy as np
from jaxtyping import Bool, Float


def unit(x: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    """Rows scaled to length one; zero rows stay zero."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def retrieval_hits(
    queries: Float[np.ndarray, "token d"], keys: Float[np.ndarray, "token d"], centre: bool = False
) -> Bool[np.ndarray, "token"]:
    """Whether key `i` is the most cosine-similar key to query `i`. Chance is one over the number of rows.

    Args:
        centre: subtract each side's mean first, which removes what all sentences of a language share.
    """
    if centre:
        queries, keys = queries - queries.mean(0), keys - keys.mean(0)
    similarity = unit(queries) @ unit(keys).T
    return similarity.argmax(1) == np.arange(len(queries))
