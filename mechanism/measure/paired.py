"""Differences of models trained in pairs: few seeds, many documents."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t

from .evidence import Evidence


@dataclass(frozen=True)
class SeedMean:
    """Mean over seeds with Student's interval.

    Attributes:
        confidence: coverage of the interval.
    """

    confidence: float = 0.95

    def __call__(self, values: Float[np.ndarray, " seed"]) -> Evidence:
        """The mean, its interval, and the number of seeds.

        Raises:
            ValueError: fewer than two seeds, or a value that is not finite.
        """
        seeds = _finite(values).size
        if seeds < 2:
            raise ValueError(f"{seeds} seeds give no interval: at least two are needed")
        variance = float(values.var(ddof=1)) / seeds
        return _student(float(values.mean()), variance, float(seeds - 1), seeds, self.confidence)


@dataclass(frozen=True)
class PairedDifference:
    """Difference per token between two models, each trained with several seeds and scored on the same documents.

    The interval is Student's. Its variance is the sum of two: of the mean over seeds, and of the ratio estimate over
    documents (cluster sampling); degrees of freedom are Satterthwaite's. A bootstrap over three seeds would reach from
    the smallest to the largest of them, which is no 95 % interval.

    Attributes:
        confidence: coverage of the interval.
    """

    confidence: float = 0.95

    def __call__(
        self, differences: Float[np.ndarray, "seed document"], tokens: Float[np.ndarray, " document"]
    ) -> Evidence:
        """Mean difference per token, its interval, and the number of seeds.

        Args:
            differences: summed over a document's tokens.
            tokens: of each document.

        Raises:
            ValueError: fewer than two seeds or documents, a document without tokens, or a value that is not finite.
        """
        seeds, documents = _finite(differences).shape
        if seeds < 2 or documents < 2:
            raise ValueError(f"{seeds} seeds and {documents} documents give no interval: at least two each are needed")
        if not (_finite(tokens) > 0).all():
            raise ValueError("a document has no tokens")
        own = differences.sum(1) / tokens.sum()
        mean = float(own.mean())
        by_seed = float(own.var(ddof=1)) / seeds
        residual = differences.mean(0) - mean * tokens
        by_document = documents / (documents - 1) * float((residual**2).sum()) / float(tokens.sum()) ** 2
        total = by_seed + by_document
        freedom = total**2 / (by_seed**2 / (seeds - 1) + by_document**2 / (documents - 1)) if total else 1.0
        return _student(mean, total, freedom, seeds, self.confidence)


def _student(mean: float, variance: float, freedom: float, n: int, confidence: float) -> Evidence:
    half = float(t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return Evidence(mean, mean - half, mean + half, n)


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    return values
