"""Entropy of routing distributions and distances between them."""

import numpy as np
from jaxtyping import Float, Int


def entropy(p: Float[np.ndarray, "... expert"]) -> Float[np.ndarray, "..."]:
    """Shannon entropy in nats; zero probabilities contribute zero.

    >>> round(float(entropy(np.array([0.5, 0.5, 0.0]))), 4)
    0.6931
    """
    p = np.asarray(p, dtype=np.float64)
    return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1))


def js_divergence(p: Float[np.ndarray, "... expert"], q: Float[np.ndarray, "... expert"]) -> Float[np.ndarray, "..."]:
    """Jensen-Shannon divergence in nats, within [0, log 2] (not its square root)."""
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    return np.asarray(np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0.0))


def normalised_js(p: Float[np.ndarray, "... expert"], q: Float[np.ndarray, "... expert"]) -> Float[np.ndarray, "..."]:
    """Entropy-normalised Jensen-Shannon divergence (arXiv 2510.04694, eqs. 6-8): JS over the largest value it can
    take given the two entropies, `log E - (H(p) + H(q)) / 2`; within [0, 1]. Two uniform distributions give 0.

    >>> one, other = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.0, 0.5, 0.5])
    >>> round(float(normalised_js(one, other)), 6), float(normalised_js(one, one))
    (1.0, 0.0)
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    room = np.log(p.shape[-1]) - (entropy(p) + entropy(q)) / 2
    return np.asarray(js_divergence(p, q) / np.maximum(room, 1e-6))


def routing_divergence(
    reference: Float[np.ndarray, "segment layer expert"], other: Float[np.ndarray, "segment layer expert"]
) -> Float[np.ndarray, "layer"]:
    """Routing divergence of a language from a reference (arXiv 2510.04694, eq. 2): `normalised_js` of each parallel
    pair, then the mean over pairs. Divergence of corpus averages is something else: sentences average out.

    Pairs of which one side is NaN are left out.

    Raises:
        ValueError: no pair is left.
    """
    both = np.concatenate([reference, other], -1)
    both = both[~np.isnan(both).any((1, 2))]
    if not len(both):
        raise ValueError("no segment is left: all lack routing (NaN)")
    p, q = np.split(both, 2, -1)
    return np.asarray(normalised_js(p, q).mean(0))


def divergence_matrix(
    importance: Float[np.ndarray, "lang segment layer expert"],
) -> tuple[Float[np.ndarray, "layer lang lang"], Int[np.ndarray, "lang lang"]]:
    """Routing divergence of every two languages, and the number of parallel segments it rests on (its diagonal: the
    segments of the language).

    A segment that a language lacks is NaN. Two languages without a common segment have divergence NaN and count 0.
    """
    langs, _, layers, _ = importance.shape
    present = ~np.isnan(importance).any((2, 3))
    counts = present.astype(np.int64) @ present.T.astype(np.int64)
    found = np.zeros((layers, langs, langs))
    for i in range(langs):
        for j in range(i):
            pair = routing_divergence(importance[i], importance[j]) if counts[i, j] else np.full(layers, np.nan)
            found[:, i, j] = found[:, j, i] = pair
    return found, counts
