"""`mechanism run`, `mechanism compare`, `mechanism lm-eval` and `mechanism lm-eval-tasks`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .console import Json, err, out, say


def run(
    model: Annotated[str, typer.Option(help="A committed model's name, a folder, or a hub id, with @revision or not.")],
    to: Annotated[Path | None, typer.Option("--out", help="Folder of the run; runs/NAME by default.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, or balanced over all GPUs.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    languages: Annotated[str | None, typer.Option(help="Codes, separated by commas; all by default.")] = None,
    parallel: Annotated[
        str | None, typer.Option(help="Your parallel text for the pages on languages: a folder, table or hub:NAME.")
    ] = None,
    domains: Annotated[
        list[str] | None, typer.Option(help="A corpus that is a domain, for the pages on domains; repeatable.")
    ] = None,
    notebooks: Annotated[
        list[str] | None, typer.Option(help="Notebook to run (its name, or a prefix); repeatable; all that apply.")
    ] = None,
    profile: Annotated[
        str,
        typer.Option(help="auto: the full result where it is kept, else a sample; small; full: all that there is."),
    ] = "auto",
    max_segments: Annotated[int | None, typer.Option(help="Cap per language and corpus in the small profile.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is drawn.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Execute also what is unchanged.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it takes, page by page, and stop.")] = False,
) -> None:
    """Run every chapter that applies on another model, into a folder of its own; again to go on where it stopped."""
    from ..models.allocator import keep_memory

    keep_memory()  # so that what is timed beforehand is as fast as the pages, which run so

    from ..report.rerun import look_ahead, rerun
    from ..report.rerun_plan import Rerun

    asked = Rerun(
        model=model,
        out=to or Path("runs") / Path(model).name,
        device=device,
        dtype=dtype,
        languages=tuple(languages.split(",")) if languages else (),
        parallel=parallel,
        domains=tuple(domains or ()),
        notebooks=tuple(name.removesuffix(".ipynb") for name in notebooks or ()),
        profile=profile,
        max_segments=max_segments,
        seed=seed,
        force=force,
    )
    if dry_run:
        look_ahead(asked, tell=say)
        return
    try:
        rerun(asked, tell=say)
    except KeyboardInterrupt:
        kept = f"finished notebooks are kept in {asked.out}, the same command goes on from there"
        err.print(f"mechanism: interrupted; {kept}", markup=False, soft_wrap=True)
        raise typer.Exit(130) from None
    out.print(str(asked.out / "index.html"), soft_wrap=True)


def compare(
    runs: Annotated[list[str], typer.Argument(help="Folders of runs; `report` stands for the committed records.")],
    to: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("compare.html"),
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table instead.")] = False,
    json_: Json = False,
) -> None:
    """Make one page of claims by models from several runs, with tests of their differences on the same texts."""
    from ..report.compare import compare_html, compare_markdown, compare_rows
    from ..report.differences import differences
    from ..report.files import write_atomic
    from ..report.run_folder import load_runs

    loaded = load_runs(runs)
    if json_:
        tested, rows = differences(loaded), compare_rows(loaded)
        out.print_json(json.dumps([row | {"differences": [t for t in tested if t["id"] == row["id"]]} for row in rows]))
    elif markdown:
        print(compare_markdown(loaded), end="")  # noqa: T201
    else:
        write_atomic(to, compare_html(loaded))
        out.print(str(to), soft_wrap=True)


def lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness with the model `mechanism`, steered or not; all arguments are the harness's own.

    For example: run --model mechanism --model_args pretrained=tiny,edits=edits.json --tasks next_segment_en
    --include_path TASKS."""
    from ..models.lm_eval import main

    main(context.args)


def lm_eval_tasks(
    folder: Annotated[Path, typer.Argument(help="Where to write the tasks.")],
    languages: Annotated[str, typer.Option(help="Codes, separated by commas.")] = "en",
    data: Annotated[str, typer.Option(help="Corpus: a name, folder, table or hub:NAME.")] = "tech",
    split: Annotated[str, typer.Option(help="test or dev")] = "test",
    max_items: Annotated[int, typer.Option(help="Items per language.")] = 200,
) -> None:
    """Write next-segment choice as tasks of lm-evaluation-harness, one a language, with their items."""
    from ..models.lm_eval import write_tasks

    for name in write_tasks(folder, data, tuple(languages.split(",")), split, max_items):
        out.print(name)
