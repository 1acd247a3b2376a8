"""How much an expert is a domain's own, from how often it is selected.

Every measure maps `Domains` to `(layer, expert, domain)`, or to `(layer, expert)` if it is of the expert alone. The
equations of arXiv 2601.10159 could not be recovered; what stands here under its names (activation rate, activation
entropy, certainty, CWAS) is our definition. Domains count equally in it: more text of one domain makes no specialist.
It is made of counts, not gate weights, so that it means the same for every router, normalised or not.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

from .divergence import entropy
from .documents import Domains


def activation_rate(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """Share of a domain's tokens that selected the expert; within [0, 1]. Long documents count more."""
    return np.asarray(domains.total("selections") / domains.tokens)


def activation_share(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """An expert's rates over their sum: how its use divides among equally large domains. NaN for an unused expert."""
    rate = activation_rate(domains)
    total = rate.sum(-1, keepdims=True)
    return np.asarray(np.where(total > 0, rate / np.where(total > 0, total, 1), np.nan))


def activation_entropy(domains: Domains) -> Float[np.ndarray, "layer expert"]:
    """Entropy of `activation_share` in nats, 0 (one domain only) to log D (all alike); NaN for an unused expert."""
    return entropy(activation_share(domains))


def certainty(domains: Domains) -> Float[np.ndarray, "layer expert"]:
    """`1 - H / log D`, from 0 (all domains alike) to 1 (one domain only); NaN for an unused expert."""
    return np.asarray(np.clip(1 - activation_entropy(domains) / np.log(len(domains.tokens)), 0, 1))


def cwas(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """Certainty-weighted activation score, ours: `rate * certainty`, within [0, 1].

    Rate alone finds experts that every domain uses, certainty alone experts that a handful of tokens use; the product
    needs both. An unused expert has 0.

    Certainty is the expert's, not the cell's: against a permutation null a specialist stands out even in domains that
    it shuns. Test experts by `Strongest(cwas)`, and cells by rate or lift. Sampling noise alone makes certainty
    positive: read it beside its mean under the null.
    """
    return np.asarray(activation_rate(domains) * np.nan_to_num(certainty(domains))[..., None])


@dataclass(frozen=True)
class Strongest:
    """A measure of cells at its largest over domains: a measure of the expert.

    Attributes:
        metric: measure with domains.
    """

    metric: Callable[[Domains], np.ndarray]

    def __call__(self, domains: Domains) -> Float[np.ndarray, "layer expert"]:
        """The largest value of each expert; NaN where a domain has none."""
        return np.asarray(self.metric(domains).max(-1))


def _base(rate: np.ndarray) -> np.ndarray:
    """Mean rate over domains, `(layer, expert, 1)`."""
    return (rate @ np.full(rate.shape[-1], 1 / rate.shape[-1]))[..., None]


def lift(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """Activation rate in a domain over the base rate, the mean over domains: 1 is chance, at most the number of
    domains; NaN for an unused expert."""
    rate = activation_rate(domains)
    base = _base(rate)
    return np.asarray(np.where(base > 0, rate / np.where(base > 0, base, 1), np.nan))


def information(domains: Domains) -> Float[np.ndarray, "layer expert domain"]:
    """A domain's share of the mutual information, in nats, between a token's domain and whether it selects the expert:
    `KL(Bernoulli(rate) || Bernoulli(base rate)) / D`, at least 0, and 0 for an unused expert. Preference and avoidance
    both count: an expert that a domain shuns tells as much as one that it seeks."""
    rate = activation_rate(domains)
    base = np.clip(_base(rate), 0, 1)
    return np.asarray(np.maximum(1 / rate.shape[-1] * (rel_entr(rate, base) + rel_entr(1 - rate, 1 - base)), 0))


def mutual_information(domains: Domains) -> Float[np.ndarray, "layer expert"]:
    """Mutual information in nats of a token's domain and whether it selects the expert, within [0, min(log 2, log D)]:
    `information` over domains."""
    return np.asarray(information(domains).sum(-1))
