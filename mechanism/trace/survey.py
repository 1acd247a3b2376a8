"""The contract list as a table: over one model, or over every family of the installed transformers."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch

from .checks import FULL, Result, check
from .errors import TraceError
from .families import FamilyError, families, tiny_model


def summary(family: str, results: list[Result]) -> dict[str, Any]:
    """One row: counts by outcome, and the first reason that something did not pass (failures before refusals)."""
    counts = Counter(r.status for r in results)
    told = sorted(
        (r for r in results if r.status != "passed"), key=lambda r: ("failed", "refused", "void").index(r.status)
    )
    return {
        "family": family,
        **{status: counts[status] for status in ("passed", "failed", "refused", "void")},
        "reason": f"{told[0].contract}: {told[0].detail}" if told else "",
    }


def survey(dtype: torch.dtype = torch.float32, names: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """A row per family, as each is done; a family that cannot be observed at all fails every contract."""
    for family in families() if names is None else names:
        try:
            yield summary(family, check(tiny_model(family, dtype=dtype)))
        except (TraceError, FamilyError) as error:
            nothing = {"passed": 0, "failed": len(FULL), "refused": 0, "void": 0}
            yield {"family": family, **nothing, "reason": f"{type(error).__name__}: {error}"}
