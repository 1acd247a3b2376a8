"""Which few of many have the largest mean, at a fraction of the cost of looking at everything.

Successive elimination: all candidates are looked at on a few items; those that are surely in, or surely out, are not
looked at again, and the others race on over twice as many items. The rounds share the budget equally, those closest to
the edge first (sequential halving: Karnin et al. 2013). A cheap statistic that is known on all items is the control:
each candidate is looked at where its control is large, and only its ratio to the control has to be estimated.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import t as student

Evaluate = Callable[[np.ndarray, np.ndarray], np.ndarray]
POWER = 0.75
"""An item is drawn as often as its control to this power: the residual from a ratio grows with a power between a half
and one (Saerndal, Swensson and Wretman 1992, section 12.5)."""
SHARED = 4
"""Items' worth of the dispersion of all candidates that the dispersion of each is moderated by (Smyth 2004)."""


@dataclass(frozen=True, eq=False)
class RaceResult:
    """What a race found.

    Attributes:
        table: one row a candidate: `estimate` of the mean over all items, `low`, `high`, `items` looked at, and
            `status`: `in` the top, `out`, or `undecided`.
        top: the candidates in the top: those decided, then by estimate.
        spent: cost as a share of looking at everything.
    """

    table: pd.DataFrame
    top: np.ndarray
    spent: float

    @property
    def undecided(self) -> int:
        """How many candidates could not be told."""
        return int((self.table["status"] == "undecided").sum())


@dataclass(frozen=True)
class Race:
    """A search for the `top` candidates with the largest means over a finite set of items, of values that are not
    negative.

    Each candidate's items are drawn without replacement, an item with a probability in proportion to
    `control ** POWER / sqrt(cost)` (sequential Poisson sampling: Ohlsson 1998), so that more of them include those
    drawn before. The mean is the mean of the control times the ratio of the sums that are weighted by the inverse
    probabilities. The interval of its logarithm is Student's with the dispersion moderated by that of all candidates,
    at a level for all candidates and looks at once by Bonferroni's inequality; it is approximate, as items are few. A
    candidate is in if fewer than `top` others may be above it, out if `top` others surely are.

    Attributes:
        top: how many are looked for.
        confidence: that every decision is right; budget: largest share of the whole cost.
        first: items that every candidate is looked at on, before anything is decided.
    """

    top: int
    confidence: float = 0.95
    budget: float = 0.1
    first: int = 6

    def __call__(
        self,
        evaluate: Evaluate,
        control: Float[np.ndarray, "candidate item"],
        cost: Float[np.ndarray, "candidate item"],
        places: Float[np.ndarray, "item"],
        overhead: Float[np.ndarray, "item"] | None = None,
        paid: float = 0.0,
    ) -> RaceResult:
        """Race.

        Args:
            evaluate: candidates and items, `(pair,)` each -> values `(pair,)`.
            control: the cheap statistic, not negative.
            cost: of each evaluation; where it is 0 the value is known to be 0.
            places: a number in (0, 1) for each item, uniform at random: items with small ones are drawn first.
            overhead: cost of looking at an item at all, in each round; paid: cost of the control, in the same units.

        Raises:
            ValueError: `top` is not below the number of candidates, or a value is not a number.
        """
        if not 0 < self.top < len(cost):
            raise ValueError(f"the top {self.top} of {len(cost)} candidates is no search")
        state = _State(self, control, cost, places, np.zeros(cost.shape[1]) if overhead is None else overhead, paid)
        while (chosen := state.affordable()).any():
            pairs = np.nonzero(chosen)
            state.take(chosen, evaluate(*pairs))
        return state.result()


class _State:
    """Values seen so far, bounds and decisions."""

    def __init__(
        self, race: Race, control: np.ndarray, cost: np.ndarray, places: np.ndarray, overhead: np.ndarray, paid: float
    ) -> None:
        self.race, self.cost, self.overhead = race, cost, overhead
        self.whole, self.paid, self.number = float(cost.sum() + overhead.sum()), paid, 0
        used = cost > 0
        self.usable = used.sum(1)
        self.looks = 1 + int(np.ceil(np.log2(max(cost.shape[1] / race.first, 1))))
        mean = (control * used).sum(1) / np.maximum(self.usable, 1)
        floor = np.where(mean > 0, 1e-3 * mean, 1.0)
        self.control = np.where(used, np.maximum(control, floor[:, None]), 0.0)
        self.size = self.control**POWER / np.sqrt(np.where(used, cost, np.inf))
        keys = np.divide(places, self.size, out=np.full(cost.shape, np.inf), where=used)
        self.order = keys.argsort(1, kind="stable").argsort(1)
        self.values = np.zeros(cost.shape)
        self.count = np.zeros(len(cost), dtype=np.int64)
        self.estimate, self.dispersion = np.where(self.usable, np.nan, 0.0), np.full(len(cost), np.nan)
        self.low, self.high = np.where(self.usable, -np.inf, 0.0), np.where(self.usable, np.inf, 0.0)
        self.status = np.full(len(cost), "undecided", dtype=object)

    def affordable(self) -> np.ndarray:
        """`(candidate, item)` what is looked at next: twice the items for the candidates closest to the edge of the top
        that this round's share of the budget has room for, two of them if the whole budget has. The first round may
        take everything, those after it share equally."""
        left = self.race.budget * self.whole - self.paid
        share = left / max(1, self.looks - self.number) if self.number else left
        chosen, items, spent = np.zeros(self.cost.shape, dtype=bool), np.zeros(self.cost.shape[1], dtype=bool), 0.0
        wanted = self._wanted()
        for at, candidate in enumerate(self._nearest().tolist()):
            order = self.order[candidate]
            own = (order >= self.count[candidate]) & (order < wanted[candidate])
            spent += float(self.cost[candidate, own].sum() + self.overhead[own & ~items].sum())
            if spent > (left if at < 2 else share):
                break
            chosen[candidate], items = own, items | own
        return chosen

    def _wanted(self) -> np.ndarray:
        """Items of each candidate after the next look; all of them where few would be left."""
        wanted = np.minimum(2 * self.count if self.number else self.race.first, self.usable)
        return np.where(4 * (self.usable - wanted) < self.usable, self.usable, wanted)

    def _nearest(self) -> np.ndarray:
        """Undecided candidates with items left, by distance from the edge of the top in widths of the interval; before
        there are any, by the control."""
        active = np.flatnonzero((self.status == "undecided") & (self.count < self.usable))
        if not self.number:
            return active[np.argsort(-self.control[active].sum(1), kind="stable")]
        ordered = np.sort(np.nan_to_num(self.estimate))[::-1]
        edge = ordered[self.race.top - 1 : self.race.top + 1].mean()
        width = np.maximum(self.high[active] - self.low[active], 1e-300)
        distance = np.where(np.isfinite(width), np.abs(self.estimate[active] - edge) / width, 0)
        return active[np.argsort(distance, kind="stable")]

    def take(self, chosen: np.ndarray, found: np.ndarray) -> None:
        """Count what was evaluated, and decide."""
        if np.isnan(found).any():
            raise ValueError("a value is not a number: leave its candidate out of the race, and say so")
        self.values[chosen] = found
        self.paid += float(self.cost[chosen].sum() + self.overhead[chosen.any(0)].sum())
        self.count += chosen.sum(1)
        self.number += 1
        for candidate in np.flatnonzero(chosen.any(1)).tolist():
            self._estimate(candidate)
        self._bound()
        self._decide()

    def _estimate(self, candidate: int) -> None:
        """The mean, and its squared relative error for a single item."""
        count, usable = self.count[candidate], self.usable[candidate]
        if count == usable:
            self.estimate[candidate], self.dispersion[candidate] = self.values[candidate].mean(), 0.0
            return
        seen = self.order[candidate] < count
        weight = 1 / inclusion(self.size[candidate], int(count))[seen]
        value, control = self.values[candidate, seen], self.control[candidate, seen]
        known = (weight * control).sum()
        ratio = (weight * value).sum() / known
        self.estimate[candidate] = ratio * self.control[candidate].mean()
        residual = (weight * (weight - 1) * (value - ratio * control) ** 2).sum() * count / (count - 1)
        relative = residual / (ratio * known) ** 2 if ratio > 0 else np.nan
        self.dispersion[candidate] = relative * count / (1 - count / usable)

    def _bound(self) -> None:
        exact = (self.count == self.usable) & (self.usable > 0)
        self.low[exact] = self.high[exact] = self.estimate[exact]
        part = np.flatnonzero((self.count > 1) & ~exact & np.isfinite(self.dispersion))
        if not len(part):
            return
        count, own, freedom = self.count[part], self.dispersion[part], self.count[part] - 1
        moderated = (SHARED * np.average(own, weights=freedom) + freedom * own) / (SHARED + freedom)
        level = (1 - self.race.confidence) / (2 * len(self.cost) * self.looks)
        error = np.sqrt(moderated * (1 / count - 1 / self.usable[part]))
        half = student.isf(level, SHARED + freedom) * error
        self.low[part], self.high[part] = self.estimate[part] * np.exp([-half, half])

    def _decide(self) -> None:
        for candidate in np.flatnonzero(self.status == "undecided").tolist():
            others = np.arange(len(self.low)) != candidate
            above = int((self.low[others] > self.high[candidate]).sum())
            rivals = int((self.high[others] >= self.low[candidate]).sum())
            if above >= self.race.top:
                self.status[candidate] = "out"
            elif rivals < self.race.top:
                self.status[candidate] = "in"

    def result(self) -> RaceResult:
        """The table, and the top by decision, then by estimate."""
        columns = {"estimate": self.estimate, "low": self.low, "high": self.high, "items": self.count,
                   "status": self.status}  # fmt: skip
        class_ = np.select([self.status == "in", self.status == "undecided"], [2, 1], 0)
        ranked = np.where(np.isnan(self.estimate), self.control.mean(1) - 1e9, self.estimate)
        order = np.lexsort((np.arange(len(ranked)), -ranked, -class_))
        return RaceResult(pd.DataFrame(columns), np.sort(order[: self.race.top]), self.paid / self.whole)


def inclusion(size: Float[np.ndarray, "item"], count: int) -> Float[np.ndarray, "item"]:
    """Probabilities of being among `count` items, in proportion to a size where that is at most 1, and 1 beyond."""
    ordered = np.sort(size)[::-1]
    certain = np.arange(count)
    rate = (count - certain) / np.cumsum(ordered[::-1])[::-1][:count]
    return np.minimum(1, rate[np.flatnonzero(rate * ordered[:count] <= 1)[0]] * size)
