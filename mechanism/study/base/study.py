"""A study of a model: its full result read from a record or computed and recorded, or a sample computed at once."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from ...models.load import resolve
from ...models.work import study_finished
from .records import recorded, recorded_of, stored

PROFILES = ("auto", "small", "full")
"""`auto`: the recorded full result where there is one, else the sample; `small`: the sample, records are not read;
`full`: the full result, computed and recorded where there is no record."""


@dataclass(frozen=True)
class Study:
    """What is asked of a model, and how it is answered.

    Attributes:
        key: what decides the full result besides the texts, the study's name under `study`; see `records.stored`.
        data: hash of the texts.
        full, sample: compute the result on everything, and on a part that takes seconds.
        command: what makes the record, for readers; spec: of the model, where its training seeds are held together.
    """

    key: Mapping[str, Any]
    data: str
    full: Callable[[], xr.Dataset]
    sample: Callable[[], xr.Dataset]
    command: str = ""
    spec: str = ""

    def recorded(self) -> xr.Dataset | None:
        """The recorded full result, None where there is no record."""
        return recorded(self.key, self.data)

    def result(self, profile: str = "auto") -> xr.Dataset:
        """The result under a profile of `PROFILES`; one that stands in a record has its address as attribute `record`.

        Raises:
            ValueError: no such profile; StudyError: see `records.stored`; otherwise what the computation raises.
        """
        check_profile(profile)
        found = self.recorded() if profile == "auto" else None
        if profile == "full":
            found = stored(self.key, self.data, self._named, self.command)
        found = self.sample() if found is None else found
        study_finished()
        return found

    def _named(self) -> xr.Dataset:
        return self.full().assign_attrs({"name": Path(resolve(self.spec)).name} if self.spec else {})

    def others(self, found: xr.Dataset) -> dict[str, xr.Dataset]:
        """The full results of models of the other training seeds that are recorded, by name; none beside a sample."""
        kept = recorded_of(self.spec, self.key, self.data) if "record" in found.attrs else {}
        return dict(sorted(kept.items()))

    def awaits(self, found: xr.Dataset) -> str:
        """The command that makes the full result, where `found` is only a sample; empty where it is the full one."""
        return "" if "record" in found.attrs else self.command


def check_profile(profile: str) -> None:
    """Refuse a profile that there is not.

    Raises:
        ValueError: the message lists those that there are.
    """
    if profile not in PROFILES:
        raise ValueError(f"there is no profile {profile!r}: use {', '.join(PROFILES)}")


def plain(config: Any) -> dict[str, Any]:
    """Fields of a frozen configuration as they stand in a key: tuples as lists, nested ones too."""
    return json.loads(json.dumps(asdict(config)))
