"""What a study found about one quantity: the estimate, how sure it is, and what it is held against."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .units import Units


class EvidenceError(ValueError):
    """Numbers that no verdict can rest on."""


class NotTestable(str):
    """The reason why a claim cannot be tested at all on what was run: what it speaks of did not happen."""


class Evidence(NamedTuple):
    """An estimate with its interval, from a measure to the verdict on a claim.

    Attributes:
        estimate: the number; low, high: its interval, 95 % unless a measure's `confidence` says otherwise; both equal
            the estimate where it is exact.
        n: units that it rests on: what is resampled, clusters where items have any.
        null: 95th percentile of the null distribution, or a reference value; NaN where there is none.
        p: p-value; NaN where there is none.
        note: remark for readers.
        units: what it is made of, for a comparison with another model on the same units; or why there can be none.
    """

    estimate: float
    low: float
    high: float
    n: int
    null: float = math.nan
    p: float = math.nan
    note: str = ""
    units: Units | str = ""

    @classmethod
    def exact(cls, value: float, n: int, null: float = math.nan, note: str = "") -> "Evidence":
        """A number that is counted or proved: its interval is itself."""
        return cls(value, value, value, n, null, note=note)

    @classmethod
    def of_row(cls, row: Mapping[str, Any] | pd.Series, name: str = "estimate") -> "Evidence":
        """The reverse of `row`: a row of a table with the estimate under a name, `low`, `high` and `n`; `null` and `p`
        where it has them."""
        estimate, low, high, null, p = (float(row.get(key, math.nan)) for key in (name, "low", "high", "null", "p"))
        return cls(estimate, low, high, int(row["n"]), null, p)

    @classmethod
    def of_draws(cls, estimate: Any, draws: Any, confidence: float, n: int) -> "Evidence":
        """An estimate with the percentile interval of what it is in each resample."""
        tail = (1 - confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return cls(float(estimate), float(low), float(high), n)

    def against(self, null: float = math.nan, p: float = math.nan, note: str = "") -> "Evidence":
        """The same, held against a null, a p-value, or with a note."""
        return self._replace(null=null, p=p, note=note)

    def mapped(self, function: Callable[[float], float]) -> "Evidence":
        """Estimate and interval under a monotone function; null and p are dropped."""
        low, high = sorted((float(function(self.low)), float(function(self.high))))
        units = self.units.mapped(function) if isinstance(self.units, Units) else self.units
        return Evidence(float(function(self.estimate)), low, high, self.n, note=self.note, units=units)

    def row(self, name: str = "estimate") -> dict[str, Any]:
        """The estimate under a name, `low`, `high` and `n`, as columns of a table."""
        return {name: self.estimate, "low": self.low, "high": self.high, "n": self.n}

    def checked(self) -> "Evidence":
        """Plain Python numbers that a verdict can rest on.

        Raises:
            EvidenceError: a number is missing, not finite or out of range, the interval is upside down, or `n` is not a
                positive whole number; or it is not the mean of its units.
        """
        estimate, low, high, n = (_number(name, value) for name, value in self.row().items())
        null, p = (
            math.nan if _missing(one) else _number(name, one) for name, one in (("null", self.null), ("p", self.p))
        )
        if low > high:
            raise EvidenceError(f"interval {(low, high)} is upside down: low first, then high")
        if n <= 0 or n != int(n):
            raise EvidenceError(f"n is {n:g}; a verdict needs a whole number of units, at least one")
        if not _missing(p) and not 0 <= p <= 1:
            raise EvidenceError(f"p is {p}; it must lie between 0 and 1")
        own = self.units.estimate if isinstance(self.units, Units) else None
        if own is not None and not math.isclose(own, estimate, rel_tol=1e-3, abs_tol=1e-6):
            raise EvidenceError(f"the mean of the units is {own}, and the estimate {estimate}")
        return Evidence(estimate, low, high, int(n), null, p, self.note, self.units)

    def plain(self) -> dict[str, Any]:
        """The numbers as they stand in a record: `estimate`, `interval`, `n`; `null` and `p`, None where missing."""
        null, p = (None if _missing(one) else one for one in (self.null, self.p))
        return {"estimate": self.estimate, "interval": [self.low, self.high], "n": self.n, "null": null, "p": p}


class Cell(NamedTuple):
    """A quantity as another analysis, which could as well have been made, finds it.

    Attributes:
        choices: what that analysis chose, by what there was to choose.
        evidence: what it found; smallest: effect of interest, where it is one of the choices.
    """

    choices: Mapping[str, str]
    evidence: Evidence
    smallest: float | None = None


def _missing(value: Any) -> bool:
    return bool(value != value)


def _number(name: str, value: Any) -> float:
    """A plain number from one of Python, numpy or torch."""
    if hasattr(value, "item"):
        try:
            value = value.item()
        except (ValueError, RuntimeError):
            raise EvidenceError(f"{name} holds several values; reduce it to one number first") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvidenceError(f"{name} is {value!r}; a number is needed")
    if not math.isfinite(value):
        raise EvidenceError(f"{name} is {value}; a verdict needs a finite number")
    return float(value)
