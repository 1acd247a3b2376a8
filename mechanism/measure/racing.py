"""Which few of many have the largest mean, at a fraction of the cost of looking at everything.

Successive elimination: all candidates are looked at on the same few items; those that are surely in, or surely out, are
not looked at again, and the others race on over more items. The rounds share the budget equally, those closest to the
edge first (sequential halving: Karnin et al. 2013). A cheap statistic that is known on all items serves as a
control variate: only what it does not explain has to be sampled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.stats import t as student

Evaluate = Callable[[np.ndarray, np.ndarray], np.ndarray]


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
    """A search for the `top` candidates with the largest means over a finite set of items.

    The interval of a mean is Student's, of the residuals of a regression on the control, for sampling without
    replacement; it holds for all candidates and rounds at once by Bonferroni's inequality, as far as means of the
    residuals are normal. A candidate is in if fewer than `top` others may be above it, out if `top` others surely are.

    Attributes:
        top: how many are looked for.
        confidence: that every decision is right; budget: largest share of the whole cost.
        fewest: items before anything is decided.
    """

    top: int
    confidence: float = 0.95
    budget: float = 0.15
    fewest: int = 20

    def __call__(
        self,
        evaluate: Evaluate,
        control: Float[np.ndarray, "candidate item"],
        cost: Float[np.ndarray, "candidate item"],
        rounds: Sequence[Int[np.ndarray, "_"]],
        overhead: Float[np.ndarray, "item"] | None = None,
        paid: float = 0.0,
    ) -> RaceResult:
        """Race.

        Args:
            evaluate: candidates and items -> values `(candidate, item)`.
            control: the cheap statistic.
            cost: of each evaluation; where it is 0 the value is known to be 0.
            rounds: disjoint sets of items, each a random part of what is left, in order.
            overhead: cost of looking at an item at all; paid: cost of the control, in the same units.

        Raises:
            ValueError: `top` is not below the number of candidates, or a value is not a number.
        """
        state = _State(self, control, cost, np.zeros(cost.shape[1]) if overhead is None else overhead, paid)
        if not 0 < self.top < len(cost):
            raise ValueError(f"the top {self.top} of {len(cost)} candidates is no search")
        for number, items in enumerate(rounds):
            active = np.flatnonzero(state.status == "undecided")
            if not len(active):
                break
            active, part = state.affordable(active, items, len(rounds) - number)
            if not len(part):
                break
            state.take(active, part, evaluate(active, part), len(rounds))
        return state.result()


class _State:
    """Values seen so far, bounds and decisions."""

    def __init__(self, race: Race, control: np.ndarray, cost: np.ndarray, overhead: np.ndarray, paid: float) -> None:
        self.race, self.control, self.cost, self.overhead = race, control, cost, overhead
        self.whole = float(cost.sum() + overhead.sum())
        self.paid = paid
        self.values = np.where(cost > 0, np.nan, 0.0)
        self.seen: np.ndarray = np.zeros(cost.shape, dtype=bool)
        known = cost.sum(1) == 0
        self.estimate = np.where(known, 0.0, np.nan)
        self.low, self.high = np.where(known, 0.0, -np.inf), np.where(known, 0.0, np.inf)
        self.status = np.full(len(cost), "undecided", dtype=object)

    def affordable(self, active: np.ndarray, items: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
        """The candidates closest to the edge of the top that this round's share of the budget has room for on all the
        items; where there is none for two of them, these on as many of the items as the whole budget has room for, in
        order. The first round may take everything, the `rounds` left after it share equally."""
        left = self.race.budget * self.whole - self.paid
        share = left / rounds if self.seen.any() else left
        nearest = active[np.argsort(self._distance(active), kind="stable")]
        spent = np.cumsum(self.cost[np.ix_(nearest, items)].sum(1)) + self.overhead[items].sum()
        chosen = np.sort(nearest[: max(int((spent <= share).sum()), 2)])
        each = self.cost[np.ix_(chosen, items)].sum(0) + self.overhead[items]
        return chosen, items[np.cumsum(each) <= left]

    def _distance(self, active: np.ndarray) -> np.ndarray:
        """From the edge of the top, in half widths of the interval; 0 before there are intervals."""
        if np.isnan(self.estimate[active]).any():
            return np.zeros(len(active))
        ordered = np.sort(self.estimate)[::-1]
        edge = ordered[self.race.top - 1 : self.race.top + 1].mean()
        half = np.maximum(self.high[active] - self.low[active], 1e-300)
        return np.where(np.isfinite(half), np.abs(self.estimate[active] - edge) / half, 0)

    def take(self, active: np.ndarray, items: np.ndarray, found: np.ndarray, rounds: int) -> None:
        """Count what was evaluated, and decide."""
        where = np.ix_(active, items)
        if np.isnan(found).any():
            raise ValueError("a value is not a number: leave its candidate out of the race, and say so")
        self.values[where] = np.where(self.cost[where] > 0, found, 0.0)
        self.seen[where] = True
        self.paid += float(self.cost[where].sum() + self.overhead[items].sum())
        level = (1 - self.race.confidence) / (2 * len(self.cost) * rounds)
        for candidate in active.tolist():
            self._bound(candidate, level)
        self._decide()

    def _bound(self, candidate: int, level: float) -> None:
        seen, size = self.seen[candidate], self.seen.shape[1]
        count = int(seen.sum())
        y, control = self.values[candidate, seen], self.control[candidate]
        slope = _slope(control[seen], y)
        residual = y - slope * control[seen]
        self.estimate[candidate] = residual.mean() + slope * control.mean()
        if count == size:
            self.low[candidate] = self.high[candidate] = self.estimate[candidate] = y.mean()
        elif count >= self.race.fewest:
            spread = np.sqrt(float(np.var(residual)) * count / (count - 2) * (1 / count - 1 / size))
            half = float(student.isf(level, count - 2)) * spread
            self.low[candidate], self.high[candidate] = self.estimate[candidate] + np.array([-half, half])

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
        columns = {
            "estimate": self.estimate, "low": self.low, "high": self.high, "items": self.seen.sum(1),
            "status": self.status,
        }  # fmt: skip
        class_ = np.select([self.status == "in", self.status == "undecided"], [2, 1], 0)
        ranked = np.where(np.isnan(self.estimate), self.control.mean(1) - 1e9, self.estimate)
        order = np.lexsort((np.arange(len(ranked)), -ranked, -class_))
        return RaceResult(pd.DataFrame(columns), np.sort(order[: self.race.top]), self.paid / self.whole)


def _slope(control: np.ndarray, values: np.ndarray) -> float:
    """Least-squares slope of the values on the control; 0 if the control says nothing."""
    centred = control - control.mean()
    scale = float(centred @ centred)
    return float(centred @ (values - values.mean())) / scale if scale > 0 and len(values) > 3 else 0.0
