"""Do the experts that serve a domain in one language serve it in another?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import norm

from .documents import alternate
from .nulls import PermutationTest, permutation_p


class Agreements(NamedTuple):
    """By language: the agreement, its interval, the 95th percentile of its permutation null, and p-value."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    null: np.ndarray
    p: np.ndarray


@dataclass(frozen=True)
class Agreement(PermutationTest):
    """Correlation of languages' domain profiles with a pivot's, over all experts.

    A profile is the rate in each domain less its mean over domains. Profiles are correlated across halves of the
    documents, one half for the pivot and the other for the language, both ways: translations of one document never
    meet, so what a document says cannot make languages agree. The pivot against itself is the ceiling.

    Attributes:
        n_perm: permutations of the domain labels on the language's side; confidence: of the interval, from the
            jackknife over documents of Fisher's z (a bootstrap would repeat documents, and so lower the correlation of
            halves).
    """

    n_perm: int = 499
    confidence: float = 0.95

    def __call__(
        self, rates: Float[np.ndarray, "document lang *cell"], domain: Shaped[np.ndarray, "document"], pivot: int = 0
    ) -> Agreements:
        """Agreement of every language with the one at `pivot`.

        Raises:
            ValueError: fewer than two domains, or a domain with fewer than four documents.
        """
        codes = np.unique(domain, return_inverse=True)[1]
        counts = np.bincount(codes)
        if len(counts) < 2 or counts.min() < 4:
            raise ValueError(f"agreement needs two domains with four documents each; got {counts.tolist()} documents")
        half = alternate(codes)
        own = (codes == np.arange(len(counts))[:, None]).astype(np.float64)
        value = _agreement(rates, own, own, half, pivot)
        null = self.draws(lambda order: _agreement(rates, own, own[:, order], half, pivot), len(codes), half)
        low, high = self._interval(value, [_agreement(rates, w, w, half, pivot) for w in _without_each(own)])
        return Agreements(value, low, high, np.quantile(null, 0.95, axis=0), permutation_p(value, null))

    def _interval(self, value: np.ndarray, without: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        centre, z = (np.arctanh(np.clip(v, -1 + 1e-9, 1 - 1e-9)) for v in (value, np.stack(without)))
        error = np.sqrt((len(z) - 1) / len(z) * ((z - z.mean(0)) ** 2).sum(0))
        reach = norm.ppf((1 + self.confidence) / 2) * error
        return np.tanh(centre - reach), np.tanh(centre + reach)


def _without_each(own: np.ndarray) -> Iterator[np.ndarray]:
    """The weights without one of the documents, each in turn."""
    for document in range(own.shape[1]):
        weights = own.copy()
        weights[:, document] = 0
        yield weights


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
