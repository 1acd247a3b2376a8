"""Distances between routing distributions."""

import numpy as np
from jaxtyping import Float


def entropy(p: Float[np.ndarray, "... expert"]) -> Float[np.ndarray, "..."]:
    """Shannon entropy in nats; zero probabilities contribute zero."""
    p = np.asarray(p, dtype=np.float64)
    return np.asarray(-np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1))


def js_divergence(p: Float[np.ndarray, "... expert"], q: Float[np.ndarray, "... expert"]) -> Float[np.ndarray, "..."]:
    """Jensen-Shannon divergence in nats, within [0, log 2] (not its square root)."""
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    return np.asarray(np.maximum(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2, 0.0))


def normalised_js(p: Float[np.ndarray, "... expert"], q: Float[np.ndarray, "... expert"]) -> Float[np.ndarray, "..."]:
    """Entropy-normalised Jensen-Shannon divergence (arXiv 2510.04694, eqs. 6-8): JS over the largest value it can
    take given the two entropies, `log E - (H(p) + H(q)) / 2`; within [0, 1]. Two uniform distributions give 0."""
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    room = np.log(p.shape[-1]) - (entropy(p) + entropy(q)) / 2
    return np.asarray(js_divergence(p, q) / np.maximum(room, 1e-6))
