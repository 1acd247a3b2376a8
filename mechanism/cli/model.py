"""Commands on one model: `mechanism contracts`, `evaluate` and `calculate`."""

from collections.abc import Iterator
from typing import Annotated

import typer

from .console import Json, print_frame, print_rows, say


def contracts(
    model: Annotated[str | None, typer.Argument(help="A committed model's name, a folder, or a hub id.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every family of the installed transformers, tiny.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32 by default; with --all bfloat16 as well.")] = None,
    device: str = "auto",
    write: Annotated[bool, typer.Option("--write", help="Keep what --all finds in data/baselines.")] = False,
    json_: Json = False,
) -> None:
    """Run the contract list on a model, or on every MoE family in every experts implementation and in float32 and
    bfloat16: what capture and interventions guarantee there. Ends with 1 if a contract fails."""
    if bool(model) == all_ or (write and not all_):
        raise ValueError("name a model, or use --all for every family (--write keeps what that finds); not both")
    if all_:
        failed = _all_contracts(dtype, write, json_)
    else:
        rows = _model_contracts(str(model), device, dtype or "float32")
        print_rows(rows, rows, json_, "contracts")
        failed = any(row["status"] == "failed" for row in rows)
    if failed:
        raise typer.Exit(1)


def _all_contracts(dtype: str | None, write: bool, json_: bool) -> bool:
    """Survey every family; whether anything is silently wrong."""
    from ..models.load import parse_dtype
    from ..report import guarantees
    from ..trace import survey

    chosen = survey.DTYPES if dtype is None else (str(parse_dtype(dtype)).removeprefix("torch."),)

    def told() -> Iterator[dict]:
        for row in survey.survey(dtypes=chosen):
            say(f"{row['family']}, {row['dtype']}, {row['implementation']}: {guarantees.counted(row)}")
            yield row

    found = survey.record(told())
    if write:
        guarantees.write(found)
    print_rows(found, guarantees.summary(found), json_, f"contracts, in {found['seconds']} seconds")
    return any("silently wrong" in row["outcomes"].values() for row in found["rows"])


def _model_contracts(model: str, device: str, dtype: str) -> list[dict]:
    from dataclasses import asdict

    from ..models.load import load_model
    from ..trace import check

    return [asdict(result) for result in check(load_model(model, device, dtype)[0])]


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
    from ..models.load import load_model
    from ..study.embedded.evaluate import EvaluateConfig
    from ..study.embedded.evaluate import evaluate as run

    config = EvaluateConfig(
        languages=tuple(languages.split(",")) if languages else None,
        data=tuple(data.split(",")) if data else EvaluateConfig.data,
        max_segments=max_segments,
        split=split,
        seed=seed,
    )
    loaded, tokenizer = load_model(model, device, dtype)
    table = run(loaded, tokenizer, config, say)
    print_frame(table, json_, f"Tasks: {model}", 3)


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
    from ..study.p_cross_lingual import calculator

    sizes = calculator.Sizes(languages, layers, hidden, width, experts, top_k, tuned_experts, vocab, head_dim, length)
    rows = calculator.calculate(sizes).reset_index().to_dict("records")
    shown = [{k: f"{v:,.2f}" if "GiB" in k else v if k == "model" else f"{v:,.0f}" for k, v in r.items()} for r in rows]
    print_rows(rows, shown, json_, f"{languages} languages")
