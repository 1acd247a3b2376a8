"""The front door: `mechanism COMMAND`."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable

import typer

from . import bench, book, corpus, model, rerun, train
from .console import err
from .sweep import sweep

app = typer.Typer(
    name="mechanism",
    help="How Mixture-of-Experts language models route: corpora, models, measures and an executable report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(corpus.app, name="corpus")
app.add_typer(bench.app, name="bench")
COMMANDS: dict[str, Callable[..., None]] = {
    "run": rerun.run,
    "compare": rerun.compare,
    "evaluate": model.evaluate,
    "contracts": model.contracts,
    "sweep": sweep,
    "train": train.train,
    "calculate": model.calculate,
    "claims": book.claims,
    "notebooks": book.notebooks,
    "book": book.book,
    "check": book.check,
    "pdf": book.pdf,
    "lm-eval-tasks": rerun.lm_eval_tasks,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(rerun.lm_eval)


def main() -> None:
    """Run a command; an expected failure is one sentence and exit code 1, any other one is a sentence with the file of
    the full report and exit code 70."""
    try:
        app()
    except KeyboardInterrupt as stop:
        err.print(f"mechanism: interrupted. {stop}".strip(), markup=False, soft_wrap=True)
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, _expected()):
            err.print(f"mechanism: {_unexpected(error)}", style="red", markup=False, soft_wrap=True)
            sys.exit(70)
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        err.print(f"mechanism: {message}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


def _unexpected(error: Exception) -> str:
    """A sentence for a failure that nobody foresaw, and where its full report was written."""
    handle, name = tempfile.mkstemp(prefix="mechanism-", suffix=".txt", text=True)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}")
    told = next(iter(str(error).strip().splitlines()), "")
    return (
        f"an unexpected {type(error).__name__}{': ' * bool(told)}{told}; the full report is in {name}, please send it"
    )


def _expected() -> tuple[type[Exception], ...]:
    """Failures that a sentence explains; imported when one happened, since they bring torch along."""
    from ..nn.checkpoint import TrainingError
    from ..report.build import BuildError
    from ..trace import TraceError

    return ValueError, TraceError, TrainingError, BuildError, FileNotFoundError, KeyError, TypeError
