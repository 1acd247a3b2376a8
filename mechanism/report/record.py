"""Records of verdicts and of the numbers that prose quotes, written by notebooks while they run."""

import html
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .claims import Claim, find_claim
from .files import results_folder, write_atomic
from .provenance import Provenance, provenance
from .verdicts import Evidence, Verdict

NUMBERS, UNDECIDED = "numbers", "undecided"


class RecordError(ValueError):
    """A number that cannot be recorded: missing, not finite, or not a number."""


@dataclass(frozen=True)
class Record:
    """A judged claim, as shown below the cell that judged it.

    Attributes:
        claim: what was judged; verdict: what became of it; evidence: on what, None when it is not testable here.
        unit: unit of the estimate; note: remark for readers, or the reason why it is not testable.
        notebook: where it was judged; provenance: labels and values of what decides the numbers.
        standing: what the verdict is worth to the report, when it is not one of the report's.
    """

    claim: Claim
    verdict: Verdict
    evidence: Evidence | None
    unit: str
    note: str
    notebook: str
    provenance: Mapping[str, str]
    standing: str = ""

    def payload(self) -> dict[str, Any]:
        """The record as it stands in its JSON file."""
        found = self.evidence
        return {
            "id": self.claim.id,
            "verdict": str(self.verdict),
            "scale": self.claim.scale,
            "rule": str(self.claim.rule) if self.claim.rule else None,
            "estimate": found.estimate if found else None,
            "interval": list(found.interval) if found else None,
            "n": found.n if found else None,
            "null": found.null if found else None,
            "p": found.p if found else None,
            "unit": self.unit,
            "note": self.note,
            "notebook": self.notebook,
            "provenance": dict(self.provenance),
        } | ({"standing": self.standing} if self.standing else {})

    def rows(self) -> list[tuple[str, str]]:
        """Labels and values for display."""
        found = [("claim", self.claim.statement), ("criterion", self.claim.criterion)]
        if self.evidence:
            found += _evidence_rows(self.evidence, self.unit)
        return [*found, ("note", self.note)] if self.note else found

    def __repr__(self) -> str:
        head = " ".join(filter(None, (self.claim.label(self.verdict), f"({self.standing})" if self.standing else "")))
        lines = [f"{self.claim.id}: {head}", *(f"  {k}: {v}" for k, v in self.rows())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f'<tr><th scope="row">{html.escape(label)}</th><td>{html.escape(text)}</td></tr>'
            for label, text in self.rows()
        )
        kind = self.verdict.name.lower().replace("_", "-")
        badge = f'<span class="verdict verdict-{kind}">{html.escape(self.claim.label(self.verdict))}</span>'
        standing = f" <em>{html.escape(self.standing)}</em>" if self.standing else ""
        caption = f"<caption>{self.claim.id} {badge}{standing}</caption>"
        anchor = claim_anchor(self.claim.id)
        return f'<table id="{anchor}" class="dataframe claim-record">{caption}<tbody>{cells}</tbody></table>'


def claim_anchor(claim_id: str) -> str:
    """Id of the element in which a page shows the record of a claim."""
    return f"claim-{claim_id}"


def record(
    claim_id: str,
    estimate: Any,
    interval: Iterable[Any] | None,
    n: Any,
    null: Any,
    *,
    model: str | Path | None = None,
    unit: str = "",
    p: Any = None,
    note: str = "",
    notebook: str | None = None,
    not_testable: str | None = None,
    origin: Provenance | None = None,
    folder: Path | None = None,
    write: bool = True,
    standing: str = "",
) -> Record:
    """Judge a claim on its evidence and write the record.

    Args:
        claim_id: as in `data/claims.yaml`.
        estimate, interval, n, null, p: see `Evidence`; scalars of numpy and torch are fine.
        model: folder or hub id of the model, for the provenance; or give the notebook's own as `origin`.
        unit: unit of the estimate.
        notebook: name of the notebook; by default the one that runs.
        not_testable: the reason why the claim cannot be tested here; then estimate, interval, n and null are None.
        folder: results folder; by default `$MECHANISM_RESULTS`, or `data/results`.
        write: off for a model whose verdicts are shown but do not belong in the report.
        standing: see `Record`.

    Raises:
        ClaimError: unknown claim, or its rule is still pending.
        RecordError: no data, not finite or no number, or a reason and numbers at once.
        RuleError: an interval upside down, n below one, or nothing recorded for something that the rule asks for.
    """
    claim = find_claim(claim_id)
    if not_testable is None:
        evidence = _evidence(estimate, interval, n, null, p)
        verdict = claim.verdict(evidence)
    else:
        _refuse_numbers(claim_id, not_testable, (estimate, interval, n, null, p))
        evidence, verdict, note = None, Verdict.NOT_TESTABLE, " ".join((not_testable, note)).strip()
    content = (origin or provenance(model)).content
    found = Record(claim, verdict, evidence, unit, note, notebook or running_notebook(), content, standing)
    if write:
        write_atomic(results_folder(folder) / f"{claim_id}.json", _json(found.payload()))
    return found


def leave_undecided(claim_id: str, reason: str, folder: Path | None = None) -> None:
    """Keep the reason why a claim was left undecided, beside the records."""
    payload = {"id": find_claim(claim_id).id, "reason": reason, "notebook": running_notebook()}
    write_atomic(results_folder(folder) / UNDECIDED / f"{claim_id}.json", _json(payload))


def number(name: str, value: Any, format: str = "", *, notebook: str | None = None, folder: Path | None = None) -> None:
    """Keep a number that prose quotes, and glue it to the notebook so that the book can show it.

    Args:
        name: its key, unique in the notebook.
        value: a number, a scalar of numpy or torch, a text or a truth value.
        format: Python format specification. With one, the formatted text is glued: `{glue:text}` then needs no format
            of its own, or `:s` from another page. Without one, the bare value is.
        notebook, folder: see `record`.

    Raises:
        RecordError: no data (None or not finite), no scalar, or a format that does not fit.
    """
    plain = scalar(name, value)
    try:
        text = f"{plain:{format}}"
    except (ValueError, TypeError) as error:
        raise RecordError(f"number {name!r}: format {format!r} does not fit {plain!r} ({error})") from None
    path = results_folder(folder) / NUMBERS / f"{notebook or running_notebook()}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    write_atomic(path, _json({**kept, name: {"value": plain, "text": text}}))
    _glue(name, text if format else plain)


def scalar(name: str, value: Any) -> float | int | bool | str:
    """A plain Python scalar from one of Python, numpy or torch.

    Raises:
        RecordError: None, an array of several elements, something that is no scalar, or a number that is not finite.
    """
    if hasattr(value, "item") and not isinstance(value, str):
        try:
            value = value.item()
        except (ValueError, RuntimeError):
            raise RecordError(f"{name} holds several values; reduce it to one number first") from None
    if value is None:
        raise RecordError(f"{name} has no data")
    if not isinstance(value, str | bool | int | float):
        raise RecordError(f"{name} is a {type(value).__name__}; a number, a text or a truth value is needed")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{name} is {value}; a finite number is needed")
    return value


def running_notebook() -> str:
    """Name of the notebook that runs: as the build or Jupyter says, else `interactive`."""
    named = os.environ.get("MECHANISM_NOTEBOOK") or os.environ.get("JPY_SESSION_NAME") or "interactive"
    return Path(named).stem


def read_records(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Every record of a results folder by claim id; empty where there is none yet."""
    return _by_claim(results_folder(folder))


def read_undecided(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """What `leave_undecided` kept, by claim id."""
    return _by_claim(results_folder(folder) / UNDECIDED)


def _by_claim(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def read_numbers(notebook: str, folder: Path | None = None) -> dict[str, Any]:
    """Numbers of a notebook by name; empty where there are none yet."""
    path = results_folder(folder) / NUMBERS / f"{notebook}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return {name: entry["value"] for name, entry in kept.items()}


def _evidence(estimate: Any, interval: Iterable[Any] | None, n: Any, null: Any, p: Any) -> Evidence:
    low, high = interval if interval is not None else (None, None)
    size = _number("n", n)
    if size != int(size):
        raise RecordError(f"n is {size}; a whole number of units is needed")
    bounds = (_number("interval low", low), _number("interval high", high))
    optional = (None if value is None else _number(name, value) for name, value in (("null", null), ("p", p)))
    return Evidence(_number("estimate", estimate), bounds, int(size), *optional)


def _number(name: str, value: Any) -> float:
    plain = scalar(name, value)
    if isinstance(plain, str | bool):
        raise RecordError(f"{name} is {plain!r}; a number is needed")
    return float(plain)


def _refuse_numbers(claim_id: str, reason: str, numbers: tuple) -> None:
    if not reason.strip():
        raise RecordError(f"claim {claim_id} is not testable here without a reason: say why")
    if any(value is not None for value in numbers):
        raise RecordError(f"claim {claim_id}: give numbers or the reason why it is not testable, not both")


def _evidence_rows(evidence: Evidence, unit: str) -> list[tuple[str, str]]:
    low, high = evidence.interval
    rows = [("estimate", f"{evidence.estimate:.4g} [{low:.4g}, {high:.4g}] {unit}".rstrip()), ("n", f"{evidence.n:,}")]
    optional = (("null", evidence.null), ("p", evidence.p))
    return rows + [(label, f"{value:.4g}") for label, value in optional if value is not None]


def _json(payload: Any) -> str:
    return json.dumps(payload, indent=1, ensure_ascii=False, sort_keys=False, allow_nan=False) + "\n"


def _glue(name: str, value: Any) -> None:
    try:
        from IPython import get_ipython
        from myst_nb import glue
    except ImportError:
        return
    if get_ipython() is not None:
        glue(name, value, display=False)
