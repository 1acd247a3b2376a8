"""Progress of the notebook build on the terminal: one bar per notebook, one step per cell."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console


class Step:
    """One notebook on its way: `seconds` it took, and whether it `failed`."""

    def __init__(self, bars: rich_progress.Progress, task: rich_progress.TaskID) -> None:
        self._bars, self._task = bars, task
        self.seconds, self.failed = 0.0, False

    def advance(self, done: int, total: int) -> None:
        """Show that `done` of `total` cells ran."""
        self._bars.update(self._task, completed=done, total=total)


class Progress:
    """Bars on standard error; silent when not `shown`."""

    def __init__(self, shown: bool = True) -> None:
        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.completed:.0f}/{task.total:.0f} cells"),
            rich_progress.TimeElapsedColumn(),
        )
        self._bars = rich_progress.Progress(*columns, console=Console(stderr=True), disable=not shown)

    def __enter__(self) -> "Progress":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    @contextmanager
    def notebook(self, name: str) -> Iterator[Step]:
        """The bar of one notebook."""
        task = self._bars.add_task(name, total=1)
        step = Step(self._bars, task)
        start = time.monotonic()
        try:
            yield step
        finally:
            step.seconds = time.monotonic() - start
            self._bars.update(task, description=f"{name} failed" if step.failed else name)
            self._bars.stop_task(task)
