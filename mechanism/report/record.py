"""Records of verdicts and of the numbers that prose quotes, written by notebooks while they run."""

import html
import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..measure.evidence import Cell, Evidence
from ..measure.units import Units
from .claims import Claim, find_claim
from .files import results_folder, write_atomic
from .multiverse import agreement, outcomes
from .provenance import Provenance, provenance
from .verdicts import Verdict

NUMBERS, UNDECIDED, UNITS = "numbers", "undecided", "units"
CODE = "mechanism"  # label of the code in a provenance


class RecordError(ValueError):
    """A number that cannot be recorded: missing, not finite, or not a number."""


@dataclass(frozen=True)
class Record:
    """A judged claim, as shown below the cell that judged it.

    Attributes:
        claim: what was judged; verdict: what became of it; evidence: on what, None when it is not testable here.
        note: remark for readers, or the reason why it is not testable.
        notebook: where it was judged; provenance: labels and values of what decides the numbers.
        standing: what the verdict is worth to the report, when it is not one of the report's.
        analyses: how many others that could have been made come to which verdict; none where there are no others.
    """

    claim: Claim
    verdict: Verdict
    evidence: Evidence | None
    note: str
    notebook: str
    provenance: Mapping[str, str]
    standing: str = ""
    analyses: Mapping[str, int] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """The record as it stands in its JSON file."""
        found = self.evidence
        return {
            "id": self.claim.id,
            "verdict": str(self.verdict),
            "scale": self.claim.scale,
            "rule": str(self.claim.rule),
            "digest": self.claim.digest,
            **(found.plain() if found else dict.fromkeys(("estimate", "interval", "n", "null", "p"))),
            "unit": self.claim.unit,
            "smallest": self.claim.smallest,
            "note": self.note,
            **({"analyses": dict(self.analyses)} if self.analyses else {}),
            "notebook": self.notebook,
            "provenance": dict(self.provenance),
        } | ({"standing": self.standing} if self.standing else {})

    def rows(self) -> list[tuple[str, str]]:
        """Labels and values for display."""
        found = [("claim", self.claim.statement), ("criterion", self.claim.criterion)]
        if self.evidence:
            found += _evidence_rows(self.evidence, self.claim)
        if self.analyses:
            found.append(("other analyses", agreement(self.analyses, self.verdict)))
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
    evidence: Evidence | None,
    *,
    model: str | Path | None = None,
    notebook: str | None = None,
    not_testable: str = "",
    origin: Provenance | None = None,
    folder: Path | None = None,
    write: bool = True,
    standing: str = "",
    analyses: Sequence[Cell] = (),
    testbed: str = "",
) -> Record:
    """Judge a claim on its evidence and write the record.

    Args:
        claim_id: as in `data/claims.yaml`.
        evidence: scalars of numpy and torch are fine; None for a claim that cannot be tested here.
        model: folder or hub id of the model, for the provenance; or give the notebook's own as `origin`.
        notebook: name of the notebook; by default the one that runs.
        not_testable: the reason why there is no evidence.
        folder: results folder; by default `$MECHANISM_RESULTS`, or `data/results`.
        write: off for a model whose verdicts are shown but do not belong in the report.
        standing: see `Record`.
        analyses: others that could have been made.
        testbed: other models than the report's, on which the claim is judged; its record is kept beneath that name.

    Raises:
        ClaimError: unknown claim or testbed, or a claim that is not judged there.
        EvidenceError: see `Evidence.checked`. RuleError: nothing recorded for something that the rule asks for.
        RecordError: neither evidence nor a reason, or both at once.
    """
    claim = find_claim(claim_id, testbed)
    if (evidence is None) != bool(not_testable.strip()):
        raise RecordError(f"claim {claim_id}: give its evidence, or say why it is not testable here; not both")
    evidence = evidence and evidence.checked()
    verdict = Verdict.NOT_TESTABLE if evidence is None else claim.verdict(evidence)
    note = not_testable.strip() if evidence is None else evidence.note
    content = (origin or provenance(model)).content
    others = dict(sorted(Counter(map(str, outcomes(claim, analyses))).items()))
    found = Record(claim, verdict, evidence, note, notebook or running_notebook(), content, standing, others)
    if write:
        keep(results_folder(folder) / testbed / f"{claim_id}.json", _json(found.payload()))
    return found


def leave_undecided(claim_id: str, reason: str, folder: Path | None = None) -> None:
    """Keep the reason why a claim was left undecided, beside the records."""
    payload = {"id": find_claim(claim_id).id, "reason": reason, "notebook": running_notebook()}
    keep(results_folder(folder) / UNDECIDED / f"{claim_id}.json", _json(payload))


def keep_units(claim_id: str, evidence: Evidence, sample: bool, folder: Path | None = None) -> None:
    """Keep what the evidence on a claim is made of beside its record, or why no other model has the same units.

    Args:
        sample: whether it is of a sample, not the full result.
    """
    own = evidence.units
    told = {"reason": own} if isinstance(own, str) else {"units": own.plain()}
    keep(results_folder(folder) / UNITS / f"{claim_id}.json", _json({**told, "sample": sample}))


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
    keep(path, _json({**kept, name: {"value": plain, "text": text}}))
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


def read_records(folder: Path | None = None, testbed: str = "") -> dict[str, dict[str, Any]]:
    """Every record of a results folder by claim id, or those of a testbed; empty where there is none yet."""
    return _by_claim(results_folder(folder) / testbed)


def read_undecided(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """What `leave_undecided` kept, by claim id."""
    return _by_claim(results_folder(folder) / UNDECIDED)


def read_units(folder: Path) -> dict[str, dict[str, Any]]:
    """What `keep_units` kept, by claim id."""
    return _by_claim(folder / UNITS)


def evidence_of(payload: Mapping[str, Any]) -> Evidence | None:
    """The evidence of a record as it stands in its file; None for one without."""
    if payload.get("estimate") is None:
        return None
    null, p = (math.nan if payload[name] is None else payload[name] for name in ("null", "p"))
    low, high = payload["interval"]
    return Evidence(payload["estimate"], low, high, payload["n"], null, p, payload["note"])


def _by_claim(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def _evidence_rows(evidence: Evidence, claim: Claim) -> list[tuple[str, str]]:
    bounds = f"{evidence.estimate:.4g} [{evidence.low:.4g}, {evidence.high:.4g}]"
    held = "" if math.isnan(evidence.null) else f": {evidence.null:.4g}"
    rows = [
        ("effect", claim.effect),
        ("estimate", f"{bounds} {claim.unit}".rstrip()),
        ("smallest effect of interest", f"{claim.smallest:.4g}: {claim.because}"),
        ("null", f"{claim.against}{held}"),
        ("n", f"{evidence.n:,} ({_counted(evidence, claim)})"),
    ]
    return rows if math.isnan(evidence.p) else [*rows, ("p", f"{evidence.p:.4g}")]


def _counted(evidence: Evidence, claim: Claim) -> str:
    """What `n` counts: what the claim resamples, or, on one model where the claim rests on seeds, its own units."""
    own = evidence.units
    if claim.resampled.startswith("model seeds") and isinstance(own, Units) and own.n == evidence.n:
        return f"{own.of}; one model"
    return claim.resampled


def keep(path: Path, text: str) -> None:
    """Write a record, unless the file says the same: numbers within rounding error, whatever code found them again. So
    a build that reproduces every number leaves the working tree as it was."""
    if not path.exists() or not _same(json.loads(path.read_text("utf-8")), json.loads(text)):
        write_atomic(path, text)


def _json(payload: Any) -> str:
    return json.dumps(payload, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and all(_same(one[k], other[k]) for k in one if k != CODE)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    return bool(one == other)


def _glue(name: str, value: Any) -> None:
    try:
        from IPython import get_ipython
        from myst_nb import glue
    except ImportError:
        return
    if get_ipython() is not None:
        glue(name, value, display=False)
