"""The contract list over every family, experts implementation and number format: what is observed, refused, not
applicable, or silently wrong."""

import datetime
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import transformers

from .checks import FULL, check
from .errors import TraceError
from .families import FamilyError, families, sides, tiny_model, wholes

IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")
DTYPES = ("float32", "bfloat16")
OUTCOMES = {"passed": "observed", "refused": "refused", "void": "not applicable", "failed": "silently wrong"}
"""What a contract's end means for a reader: one that fails without a refusal would let wrong numbers through."""


def survey(names: Sequence[str] | None = None, dtypes: Sequence[str] = DTYPES) -> Iterator[dict[str, Any]]:
    """Rows, one a family, dtype and implementation as each is done: `outcomes` by contract, and `reasons` for those
    that are not *observed*. A family with experts of its own has one implementation, `own`; one that attaching refuses
    is refused in every contract."""
    for family in (*families(), *wholes(), *sides()) if names is None else names:
        for dtype in dtypes:
            yield from _rows(family, dtype)


def _rows(family: str, dtype: str) -> Iterator[dict[str, Any]]:
    given = {"family": family, "dtype": dtype}
    try:
        model = tiny_model(family, dtype=getattr(torch, dtype))
    except FamilyError as error:
        yield given | {"implementation": "own", **_everywhere("not applicable", str(error))}
        return
    for name in _implementations(model):
        if name != "own":
            model.set_experts_implementation(name)
        yield given | {"implementation": name, **_checked(model)}


def _implementations(model: Any) -> tuple[str, ...]:
    try:
        model.set_experts_implementation(IMPLEMENTATIONS[-1])
    except ValueError:
        return ("own",)
    return IMPLEMENTATIONS


def _checked(model: Any) -> dict[str, Any]:
    try:
        results = check(model)
    except TraceError as error:
        return _everywhere("refused", str(error))
    return {
        "outcomes": {r.contract: OUTCOMES[r.status] for r in results},
        "reasons": {r.contract: r.detail for r in results if r.status != "passed"},
    }


def _everywhere(outcome: str, reason: str) -> dict[str, Any]:
    names = [contract.__name__ for contract in FULL]
    return {"outcomes": dict.fromkeys(names, outcome), "reasons": dict.fromkeys(names, reason)}


def record(rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """A survey with its date, versions and the seconds that it took."""
    begun = time.perf_counter()
    found = list(rows)
    return {
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "seconds": round(time.perf_counter() - begun),
        "contracts": [contract.__name__ for contract in FULL],
        "whole": list(wholes()),
        "sides": list(sides()),
        "rows": found,
    }
