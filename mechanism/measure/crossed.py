"""Domain or language? Variance of routing over documents of several domains, each in every one of several languages."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from .nulls import permutation_p


class Components(NamedTuple):
    """Variance components, each over the cells of the values; sampling noise makes small ones negative.

    Attributes:
        domain, language, interaction: between domains, between languages, and what a domain does in a language beside
            both; document: between documents of a domain, whatever the language; residual: the rest.
    """

    domain: np.ndarray
    language: np.ndarray
    interaction: np.ndarray
    document: np.ndarray
    residual: np.ndarray


class CrossedTest(NamedTuple):
    """Components, and permutation p-values of domain and language for their sums over the last axis (the experts of a
    layer)."""

    components: Components
    p_domain: np.ndarray
    p_language: np.ndarray


def crossed_components(
    values: Float[np.ndarray, "document lang *cell"], domain: Int[np.ndarray, "document"]
) -> Components:
    """Analysis of variance of unweighted means, languages within documents within domains, noise subtracted.

    With M_d the mean of a domain, C_dl of a domain in a language and N_l of a language, the components are the sample
    variances of M_d, N_l and C_dl - M_d - N_l less what documents alone make of them: the mean over domains of
    `s_d^2 / n_d` for the first (s_d^2 the variance of documents' means), `r_d^2 / n_d` for the others (r_d^2 the
    residual variance), the one for N_l divided by the number of domains.

    Args:
        domain: number of each document's domain, 0, 1, ...

    Raises:
        ValueError: fewer than two domains or languages, a domain with fewer than two documents, or a value that is not
            finite.
    """
    codes, counts = np.unique(domain, return_counts=True)
    if len(counts) < 2 or values.shape[1] < 2 or counts.min() < 2:
        raise ValueError(
            f"a crossed design needs two domains, two languages and two documents a domain; got {len(counts)} domains, "
            f"{values.shape[1]} languages and {counts.tolist()} documents"
        )
    if not np.isfinite(values).all():
        raise ValueError("every document has to be there in every language, with finite values")
    parts = [values[domain == code].astype(np.float64) for code in codes]
    content = np.mean([part.mean(1).var(0, ddof=1) for part in parts], 0)
    noise = [part.mean(1).var(0, ddof=1) / len(part) for part in parts]
    rest = [_residual(part) for part in parts]
    within = np.mean([r / len(part) for r, part in zip(rest, parts, strict=True)], 0)
    cells = np.stack([part.mean(0) for part in parts])  # domain, lang, *cell
    domains, languages = cells.mean(1), cells.mean(0)
    beside = cells - domains[:, None] - languages[None] + domains.mean(0)
    degrees = (len(parts) - 1) * (values.shape[1] - 1)
    return Components(
        domains.var(0, ddof=1) - np.mean(noise, 0),
        languages.var(0, ddof=1) - within / len(parts),
        (beside**2).sum((0, 1)) / degrees - within,
        content - np.mean(rest, 0) / values.shape[1],
        np.mean(rest, 0),
    )


def _residual(part: np.ndarray) -> np.ndarray:
    """Variance of a domain's values beside its documents and its languages."""
    left = part - part.mean(1, keepdims=True) - part.mean(0) + part.mean((0, 1))
    return (left**2).sum((0, 1)) / ((len(part) - 1) * (part.shape[1] - 1))


@dataclass(frozen=True)
class CrossedVariance:
    """Components with permutation tests: domain labels are exchanged among documents (all languages of a document at
    once), languages within each document. The statistic is the variance of the means, summed over experts.

    Attributes:
        n_perm: permutations; seed: of the permutations.
    """

    n_perm: int = 999
    seed: int = 0

    def __call__(
        self, values: Float[np.ndarray, "document lang *cell"], domain: Shaped[np.ndarray, "document"]
    ) -> CrossedTest:
        """Decompose and test.

        Args:
            domain: label of each document's domain.

        Raises:
            ValueError: see `crossed_components`.
        """
        values = np.asarray(values, np.float64)
        codes = np.unique(domain, return_inverse=True)[1]
        found = crossed_components(values, codes)
        rng = np.random.default_rng(self.seed)
        by_document = values.mean(1)
        drawn = np.stack([_between(by_document, rng.permutation(codes)) for _ in range(self.n_perm)])
        p_domain = permutation_p(_between(by_document, codes), drawn)
        spread = np.stack([_languages(_shuffled(values, rng), codes) for _ in range(self.n_perm)])
        return CrossedTest(found, p_domain, permutation_p(_languages(values, codes), spread))


def _between(by_document: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Variance of the domains' means, summed over the last axis."""
    return np.asarray(_means(codes, by_document).var(0, ddof=1).sum(-1))


def _languages(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Variance of the languages' means, domains counting equally, summed over the last axis."""
    return np.asarray(_means(codes, values).mean(0).var(0, ddof=1).sum(-1))


def _means(codes: np.ndarray, values: np.ndarray) -> np.ndarray:
    member = (codes == np.arange(codes.max() + 1)[:, None]).astype(np.float64)
    return np.tensordot(member / member.sum(1, keepdims=True), values, 1)


def _shuffled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The values with the languages of each document exchanged, all cells together."""
    order = rng.permuted(np.tile(np.arange(values.shape[1]), (len(values), 1)), axis=1)
    return values[np.arange(len(values))[:, None], order]
