"""Where a run of a grid keeps what it made."""

import json
from pathlib import Path
from typing import Any

from . import embedded

RESULT = "result.json"


class RecordedRun:
    """Places of a run, by its content address.

    Attributes:
        grid: name of the grid that it belongs to.
    """

    grid: str

    @property
    def hash(self) -> str:
        """Content address, of what decides the numbers."""
        raise NotImplementedError

    @property
    def record(self) -> Path:
        """Folder of the committed record."""
        return embedded.RUNS / self.grid / self.hash

    @property
    def workspace(self) -> Path:
        """Folder of checkpoints, outside the repository; gone once the record is there."""
        return embedded.cache_folder() / "runs" / self.hash

    @property
    def done(self) -> bool:
        return (self.record / RESULT).exists()

    def result(self) -> dict[str, Any]:
        """Its totals.

        Raises:
            FileNotFoundError: it was not made yet.
        """
        return json.loads((self.record / RESULT).read_text("utf-8"))
