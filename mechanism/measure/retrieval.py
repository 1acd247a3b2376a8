"""Parallel retrieval: is a sentence's translation its nearest neighbour, and how much nearer than others?"""

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
    return _cosines(queries, keys, centre).argmax(1) == np.arange(len(queries))


def parallel_similarity(
    queries: Float[np.ndarray, "token d"], keys: Float[np.ndarray, "token d"], centre: bool = False
) -> Float[np.ndarray, "token 2"]:
    """Cosine similarity of each query with its own key, and its mean over all other keys, in this order.

    Hidden states lie in a narrow cone, so the first number is high for any two sentences; what translations share
    beyond that is the difference of the two.

    Args:
        centre: subtract each side's mean first.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(queries) < 2:
        raise ValueError("similarity is compared with that of other pairs, which needs at least two rows")
    similarity = _cosines(queries, keys, centre)
    own = np.diag(similarity)
    return np.stack([own, (similarity.sum(1) - own) / (len(own) - 1)], 1)


def _cosines(queries: np.ndarray, keys: np.ndarray, centre: bool) -> np.ndarray:
    if centre:
        queries, keys = queries - queries.mean(0), keys - keys.mean(0)
    return np.asarray(unit(queries) @ unit(keys).T)
