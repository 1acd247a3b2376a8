"""Estimates over models: few seeds, and many documents, items or languages beneath them."""

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

    def __call__(
        self, values: Float[np.ndarray, " seed"], *beneath: tuple[Float[np.ndarray, " draw"], int]
    ) -> Evidence:
        """The mean, its interval, and the number of seeds.

        Args:
            beneath: the mean again, with units that all seeds have in common (documents, languages) resampled, and the
                number of these units; several kinds of them are resampled one at a time. Their variances are added to
                that of the mean over seeds, degrees of freedom are Satterthwaite's: seeds, then units.

        Raises:
            ValueError: fewer than two seeds or units, or a value that is not finite.
        """
        variance, freedom = self._pooled(values, beneath)
        return _student(float(values.mean()), variance, freedom, values.size, self.confidence)

    def above(self, values: Float[np.ndarray, " seed"], *beneath: tuple[Float[np.ndarray, " draw"], int]) -> float:
        """One-sided p-value that the mean is above zero; arguments as of a call."""
        variance, freedom = self._pooled(values, beneath)
        mean = float(values.mean())
        return float(t.sf(mean / variance**0.5, freedom)) if variance else float(mean <= 0)

    @staticmethod
    def _pooled(values: np.ndarray, beneath: tuple[tuple[np.ndarray, int], ...]) -> tuple[float, float]:
        """Variance of the mean, and its degrees of freedom."""
        seeds = _finite(values).size
        if seeds < 2:
            raise ValueError(f"{seeds} seeds give no interval: at least two are needed")
        variances, freedoms = [float(values.var(ddof=1)) / seeds], [seeds - 1]
        for draws, units in beneath:
            if units < 2:
                raise ValueError(f"{units} units beneath the seeds cannot be resampled: at least two are needed")
            variances, freedoms = [*variances, float(_finite(draws).var(ddof=1))], [*freedoms, units - 1]
        return _satterthwaite(variances, freedoms)


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
        pooled = _satterthwaite([by_seed, by_document], [seeds - 1, documents - 1])
        return _student(mean, *pooled, seeds, self.confidence)


def _satterthwaite(variances: list[float], freedoms: list[int]) -> tuple[float, float]:
    """Sum of independent variances, and its degrees of freedom."""
    total = sum(variances)
    parts = sum(own**2 / freedom for own, freedom in zip(variances, freedoms, strict=True))
    return total, total**2 / parts if parts else 1.0


def _student(mean: float, variance: float, freedom: float, n: int, confidence: float) -> Evidence:
    half = float(t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return Evidence(mean, mean - half, mean + half, n)


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    return values
