"""Values of the same units (items, documents, languages) in two models, and the difference that they show."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.stats import t

from .power import Detectable

OVER_SEEDS = "it is a mean over training seeds, which another model does not share"
EXPERTS = "its units are experts, and those of two models are not the same ones"


class UnpairedError(ValueError):
    """Units of two runs that cannot be set against each other; the sentence says why."""


@dataclass(frozen=True, eq=False)
class Units:
    """What an estimate is made of.

    Attributes:
        of: what the units are, and over what else is averaged; the same in runs that can be paired.
        ids: of each unit; of draws, the hash of all.
        values, weights: `(unit,)`; the estimate is their weighted mean. Empty where there are draws.
        draws: `(draw,)` the estimate when units are drawn anew, for one that is no mean; the i-th of two models are of
            the same units where `ids` are the same. NaN where it is not defined.
        n: units.
    """

    of: str
    ids: tuple[str, ...]
    values: Float[np.ndarray, " unit"]
    weights: Float[np.ndarray, " unit"]
    n: int
    draws: Float[np.ndarray, " draw"] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def mean(cls, of: str, ids: Iterable[Any], values: Any, weights: Any = None) -> "Units":
        """Of a mean, a weighted one with weights."""
        own = np.asarray(values, np.float64)
        return cls(
            of, tuple(map(str, ids)), own, np.ones_like(own) if weights is None else np.asarray(weights), len(own)
        )

    @classmethod
    def ratio(cls, of: str, ids: Shaped[np.ndarray, " item"], tops: np.ndarray, bottoms: np.ndarray) -> "Units":
        """Of `sum(tops) / sum(bottoms)`, summed over the items of a unit first."""
        names, codes = np.unique(np.asarray(ids).astype(str), return_inverse=True)
        top, bottom = (np.bincount(codes, side) for side in (tops, bottoms))
        kept = bottom > 0
        return cls.mean(of, names[kept], top[kept] / bottom[kept], bottom[kept])

    @classmethod
    def jackknife(
        cls, of: str, ids: Iterable[Any], statistic: Callable[[Int[np.ndarray, " kept"]], float]
    ) -> "Units | None":
        """Of a statistic of units, given the numbers of those that are kept: pseudovalues (Tukey 1958), moved such that
        their mean is the statistic of all. Their variance errs, if at all, on the large side (Efron and Stein 1981).
        None where it is not defined without one of them."""
        names = list(ids)
        every = np.arange(len(names))
        whole, without = statistic(every), np.array([statistic(np.delete(every, i)) for i in every])
        values = whole + (len(names) - 1) * (without.mean() - without)
        return cls.mean(of, names, values) if np.isfinite(values).all() else None

    @classmethod
    def drawn(cls, of: str, names: Iterable[Any], draws: Any, n: int) -> "Units":
        """Of an estimate with its draws over what has these names, in this order."""
        digest = hashlib.sha256("\n".join(map(str, names)).encode()).hexdigest()[:16]
        return cls(of, (digest,), np.zeros(0), np.zeros(0), n, np.asarray(draws, np.float64))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Units) and self.plain() == other.plain()

    def __hash__(self) -> int:
        return hash((self.of, self.ids))

    @property
    def estimate(self) -> float | None:
        """The weighted mean of the values; None where there are draws."""
        return None if len(self.draws) else float(np.average(self.values, weights=self.weights))

    def mapped(self, function: Callable[[float], float]) -> "Units":
        """Values and draws under a function, an affine one where there are values."""
        values, draws = (np.array([function(one) for one in own], np.float64) for own in (self.values, self.draws))
        return Units(self.of, self.ids, values, self.weights, self.n, draws)

    def plain(self) -> dict[str, Any]:
        """As JSON values; NaN is None."""
        numbers = {name: getattr(self, name) for name in ("values", "weights", "draws")}
        kept = {name: [None if np.isnan(x) else float(x) for x in own] for name, own in numbers.items()}
        return {"of": self.of, "ids": list(self.ids), "n": self.n, **kept}

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> "Units":
        """From `plain`."""
        numbers = {name: np.array(plain[name], np.float64) for name in ("values", "weights", "draws")}
        return cls(plain["of"], tuple(plain["ids"]), n=plain["n"], **numbers)


class Difference(NamedTuple):
    """The second model's estimate minus the first's, on the units that both have.

    Attributes:
        first, second: estimates on these units; low, high: 95 % interval of their difference; p: two-sided; n: units;
            left: units of the model with more of them that are not in both.
    """

    first: float
    second: float
    estimate: float
    low: float
    high: float
    p: float
    n: int
    left: int

    def detectable(self, alpha: float = 0.05) -> float:
        """Smallest difference that a test at this level finds with a probability of 80 %."""
        return Detectable(alpha=alpha).difference(self.low, self.high, freedom=self.n - 1.0)


ROUNDING = 1e-6
"""Differences of less than this share of an estimate are rounding: another device or order of sums."""


def paired(first: Units, second: Units, estimates: tuple[float, float]) -> Difference:
    """Student's test of the difference, units as clusters: the standard error is that of weighted means by
    linearisation, or the standard deviation of the draws' differences. Where it is 0 and the difference is not, the
    p-value is the smallest that flips of so many signs give.

    Args:
        estimates: of both models on all of their units.

    Raises:
        UnpairedError: other units, fewer than two in common or less than half, or draws that are not of the same units.
    """
    drawn = [len(own.draws) > 0 for own in (first, second)]
    if first.of != second.of or drawn[0] != drawn[1]:
        raise UnpairedError(f"one is of {first.of}, the other of {second.of}")
    (one, two), error, n, left = _of_draws(first, second, estimates) if drawn[0] else _of_values(first, second)
    change, scale = two - one, max(abs(one), abs(two))
    if abs(change) <= ROUNDING * scale:
        p = 1.0
    else:
        p = float(2 * t.sf(abs(change) / error, n - 1)) if error > ROUNDING * scale else 2.0 ** (1 - n)
    half = float(t.ppf(0.975, n - 1)) * error
    return Difference(one, two, change, change - half, change + half, p, n, left)


_Found = tuple[tuple[float, float], float, int, int]


def _of_draws(first: Units, second: Units, estimates: tuple[float, float]) -> _Found:
    if (first.ids, first.n) != (second.ids, second.n):
        raise UnpairedError(f"the {first.of} are not the same in both")
    if first.n < 2:
        raise UnpairedError(f"a single one of the {first.of} gives no test")
    size = min(len(first.draws), len(second.draws))
    change = second.draws[:size] - first.draws[:size]
    return estimates, float(np.nanstd(change, ddof=1)) * (first.n / (first.n - 1)) ** 0.5, first.n, 0


def _of_values(first: Units, second: Units) -> _Found:
    places = [{name: i for i, name in enumerate(own.ids)} for own in (first, second)]
    common = [name for name in first.ids if name in places[1]]
    n, most = len(common), max(len(first.ids), len(second.ids))
    if n < 2 or 2 * n < most:
        raise UnpairedError(f"{n} of the {first.of} are in both, of {most}")
    means, influence = [], []
    for own, place in zip((first, second), places, strict=True):
        at = [place[name] for name in common]
        values, weights = own.values[at], own.weights[at] / own.weights[at].sum()
        means.append(float(weights @ values))
        influence.append(weights * (values - means[-1]))
    error = float(np.sqrt(n / (n - 1) * ((influence[1] - influence[0]) ** 2).sum()))
    return (means[0], means[1]), error, n, most - n
