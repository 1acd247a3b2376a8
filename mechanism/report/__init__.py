"""Verdicts, provenance, figures and the build of the book. Notebooks call `report.record` and `report.number`."""

from .provenance import provenance
from .record import number, record

__all__ = ["number", "provenance", "record"]
