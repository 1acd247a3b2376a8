"""Do the experts that serve a domain in one language serve it in another?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from .nulls import permutation_p, shuffles


class Agreements(NamedTuple):
    """By language: the agreement, its interval, the 95th percentile of its permutation null, and p-value."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """Correlation of languages' domain profiles with a pivot's, over all experts.

    A profile is the rate in each domain less its mean over domains. Profiles are correlated across halves of the
    documents, one half for the pivot and the other for the language, both ways: translations of one document never
    meet, so what a document says cannot make languages agree. The pivot against itself is the ceiling.

    Attributes:
        n_perm: permutations of the domain labels on the language's side; n_boot: resamples of documents within domain
            and half; confidence: of the interval; seed: of both.
    """

    n_perm: int = 499
    n_boot: int = 500
    confidence: float = 0.95
    seed: int = 0

    def __call__(
        self, rates: Float[np.ndarray, "document lang *cell"], domain: Shaped[np.ndarray, "document"], pivot: int = 0
    ) -> Agreements:
        """Agreement of every language with the one at `pivot`.

        Raises:
            ValueError: fewer than two domains, or a domain with fewer than two documents.
        """
        codes = np.unique(domain, return_inverse=True)[1]
        counts = np.bincount(codes)
        if len(counts) < 2 or counts.min() < 2:
            raise ValueError(f"agreement needs two domains with two documents each; got {counts.tolist()} documents")
        half = _alternate(codes)
        own = (codes == np.arange(len(counts))[:, None]).astype(np.float64)
        value = _agreement(rates, own, own, half, pivot)
        orders = shuffles(len(codes), self.n_perm, self.seed, half)
        null = np.stack([_agreement(rates, own, own[:, order], half, pivot) for order in orders])
        drawn = np.stack([_agreement(rates, w, w, half, pivot) for w in self._resamples(own, half)])
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
        return Agreements(value, low, high, np.quantile(null, 0.95, axis=0), permutation_p(value, null))

    def _resamples(self, own: np.ndarray, half: np.ndarray) -> Iterator[np.ndarray]:
        """Numbers of draws `(domain, document)` of each document."""
        rng = np.random.default_rng(self.seed)
        parts = [np.flatnonzero((row > 0) & (half == side)) for row in own for side in (0, 1)]
        for _ in range(self.n_boot):
            weights = np.zeros_like(own)
            for i, part in enumerate(parts):
                weights[i // 2, part] = rng.multinomial(len(part), np.full(len(part), 1 / len(part)))
            yield weights


def _alternate(codes: np.ndarray) -> np.ndarray:
    """0 and 1 in turn within each domain."""
    half = np.empty(len(codes), dtype=np.int64)
    for code in range(int(codes.max()) + 1):
        own = np.flatnonzero(codes == code)
        half[own] = np.arange(len(own)) % 2
    return half


def _agreement(rates: np.ndarray, pivot: np.ndarray, other: np.ndarray, half: np.ndarray, at: int) -> np.ndarray:
    """Both ways' mean; `pivot` and `other` are `(domain, document)` weights of the documents on either side."""
    ways = []
    for side in (0, 1):
        first = _profile(rates[half == side][:, [at]], pivot[:, half == side])
        second = _profile(rates[half != side], other[:, half != side])
        ways.append((first * second).sum(1))
    return np.asarray(np.mean(ways, 0))


def _profile(rates: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`(lang, domain * cell)` profiles of unit length."""
    means = np.tensordot(weights / weights.sum(1, keepdims=True), rates, 1)
    centred = np.swapaxes(means - means.mean(0), 0, 1).reshape(rates.shape[1], -1)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-300))
