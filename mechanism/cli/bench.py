"""`mechanism bench ...`."""

from typing import Annotated

import typer

from .console import Json, out, print_bench, print_frame, print_table, say

app = typer.Typer(help="Measure this machine.", no_args_is_help=True)


@app.command("train")
def bench_train(
    steps: Annotated[int, typer.Option(help="Counted steps per variant.")] = 8,
    json_: Json = False,
) -> None:
    """Compare experts implementations, dtypes and compilation on a training step of the embedded model.

    The variants take turns; a variant's ratio is the median over turns of its rate to that of the first."""
    from ..bench import training as bench

    print_bench(bench.bench(steps), json_, "tokens per second, training")


@app.command("compression")
def bench_compression(json_: Json = False) -> None:
    """Bits per byte of xz and PPM on the test text, given the same training text (computed once, then read).

    The ratio is the median over languages and corpora of PPM's to xz's."""
    from ..study.embedded import compression as baselines

    table = baselines.made(say)
    ratio = round(float((table["ppm"] / table["xz"]).median()), 4)
    found = {"name": "compression", "ratio": ratio, "cases": table.to_dict("records")}
    print_bench(found, json_, "bits per byte, compression")


@app.command("rules")
def bench_rules(runs: Annotated[int, typer.Option(help="Simulated studies per claim and truth.")] = 1000) -> None:
    """Simulate the error rates of the claims' rules and record them, for the page on method."""
    from ..report import error_rates

    table = error_rates.simulate(runs)
    table.to_csv(error_rates.RECORD, index=False)
    print_table(table.drop(columns="digest").to_dict("records"), "error rates")


Repeats = Annotated[int, typer.Option(help="Counted forwards per case.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Shape = Annotated[str, typer.Option(help="embedded, or olmoe: OLMoE-1B-7B with random weights, in bfloat16.")]


@app.command("capture")
def bench_capture(
    repeats: Repeats = 30, device: Device = "cpu", shape: Shape = "embedded", json_: Json = False
) -> None:
    """Time and memory of watching routing, against the bare forward of a model with random weights."""
    from ..bench import capture as bench_trace
    from ..models.load import parse_device

    found = bench_trace.bench_capture(repeats, device=parse_device(device), shape=shape)
    print_bench(found, json_, "seconds per forward, capture")
    if found["memory"] and not json_:
        print_table(found["memory"], "memory")


@app.command("intervene")
def bench_intervene(
    repeats: Repeats = 30, device: Device = "cpu", shape: Shape = "embedded", json_: Json = False
) -> None:
    """Time of each kind of intervention on every layer, against the bare forward of a model with random weights."""
    from ..bench import capture as bench_trace
    from ..models.load import parse_device

    found = bench_trace.bench_intervene(repeats, parse_device(device), shape)
    print_bench(found, json_, "seconds per forward, interventions")


@app.command("layers")
def bench_layers(
    repeats: Annotated[int, typer.Option(help="Counted turns of each layer.")] = 20,
    tokens: Annotated[int, typer.Option(help="Tokens in a turn.")] = 4096,
    json_: Json = False,
) -> None:
    """Time of sparse and multi-head layers against transformers' Qwen3-MoE block and a dense layer of equal FLOPs.

    A layer's ratio is to the faster of transformers' own implementations; the last one is SparseMoE's largest."""
    from ..bench import layers as bench_layers

    print_bench(bench_layers.bench_layers(repeats, tokens), json_, "seconds per layer, two threads")


@app.command("steps")
def bench_steps(
    grid: Annotated[str, typer.Option(help="A committed grid of runs, or a .yaml file.")] = "mh_moe",
    turns: Annotated[int, typer.Option(help="Counted turns of each seed.")] = 20,
    write: Annotated[bool, typer.Option("--write", help="Keep the table in data/runs/GRID.")] = False,
    json_: Json = False,
) -> None:
    """Time of a training step of each model of the multi-head grid, which take turns, and memory that it keeps.

    A model's ratio is the median over seeds and turns of its rate to that of the first."""
    from ..bench import steps as bench
    from ..study.grids import load_grid

    plan = load_grid(grid)
    table = bench.bench_steps(plan, turns)
    if write:
        bench.write(plan, table)
    print_bench(bench.summary(plan, table), json_, "tokens per second, training")


@app.command("growth")
def bench_growth(
    repeats: Annotated[int, typer.Option(help="Counted turns of each layer.")] = 11,
    write: Annotated[bool, typer.Option("--write", help="Keep the times in data/baselines.")] = False,
    json_: Json = False,
) -> None:
    """Time of the embedded model's feed-forward layer over its number of experts: on what claim D8 is judged.

    The ratio is of 64 experts to 8. Keep times of an otherwise idle machine only: what else runs is noted."""
    import torch

    from ..report.provenance import cpu_name
    from ..study.d_domains import constant_compute as growth

    config = growth.ComputeConfig(repeats=repeats)
    facts = {"threads": config.threads, "torch": torch.__version__.split("+")[0], "machine": cpu_name()}
    times = growth.time_layers(config).assign(**facts)
    if write:
        times.to_csv(growth.RECORD, index=False)
    found = growth.compute_growth(times, config)
    cases = found.table.to_dict("records")
    print_bench(
        {"name": "growth", "ratio": round(found.time.estimate, 4), "cases": cases}, json_, "seconds per forward"
    )


@app.command("peers")
def bench_peers(
    tokens: Annotated[int, typer.Option(help="Tokens of a call.")] = 1024,
    repeats: Annotated[int, typer.Option(help="Counted calls.")] = 5,
    write: Annotated[bool, typer.Option("--write", help="Keep the table in data/baselines.")] = False,
    json_: Json = False,
) -> None:
    """What other published layers of this kind compute, and how fast: those that are installed, beside ours."""
    from ..bench import peers as bench

    table = bench.bench_peers(tokens, repeats)
    if write:
        bench.write(table)
    print_frame(table, json_, "layers of peers")
    if not json_:
        out.print(bench.missing())


@app.command("sweep")
def bench_sweep(
    model: Annotated[str, typer.Argument(help="A committed model's name, a folder, or a hub id.")] = "embedded",
    max_segments: Annotated[int, typer.Option(help="Cap per domain and language.")] = 24,
    max_tokens: Annotated[int, typer.Option(help="Tokens of a segment; the rest is cut off.")] = 40,
    batches: Annotated[int, typer.Option(help="Batches ablated both ways.")] = 1,
    search: Annotated[bool, typer.Option(help="Sweep all texts exactly and race.")] = True,
    json_: Json = False,
) -> None:
    """Time of ablating every expert by restarts and by whole passes, how much they differ, and recall and cost of the
    race for the driver experts against the exact sweep.

    A case's ratio is of whole passes to restarts; the last one is of zero ablation."""
    from ..bench import sweep as bench
    from ..models.allocator import keep_memory
    from ..models.load import load_model
    from ..study.d_domains.domain_text import SweepConfig

    keep_memory()
    config = SweepConfig(max_segments=max_segments, max_tokens=max_tokens)
    loaded, tokenizer = load_model(model, "cpu", "float32", moe=True)
    found = bench.bench_sweep(loaded, tokenizer, config, batches, search=search, say=say)
    print_bench(found, json_, "seconds for all experts, one batch")


@app.command("race")
def bench_race(
    model: Annotated[str, typer.Argument(help="A model whose sweep is recorded.")] = "embedded",
    orders: Annotated[int, typer.Option(help="Random orders of the segments, for each model and budget.")] = 100,
    json_: Json = False,
) -> None:
    """Recall and cost of the race for the driver experts, replayed on recorded sweeps: no model is run.

    The model's other training seeds are raced where their sweeps are recorded. The ratio is the largest cost by the
    exact sweep's multiplications."""
    from ..bench import sweep as bench

    rows = bench.bench_race(model, orders)
    ratio = max(row["largest"] for row in rows)
    print_bench({"name": "race", "ratio": ratio, "cases": rows}, json_, "races for the driver experts")


@app.command("tools")
def bench_tools(
    repeats: Annotated[int, typer.Option(help="Counted passes of each tool.")] = 15,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in a process of its own for each tool.")] = True,
    checks: Annotated[bool, typer.Option("--checks", help="Only what each tool gets right; nothing is timed.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Keep the tables in data/baselines.")] = False,
    json_: Json = False,
) -> None:
    """Tools that people watch routing with, side by side: what each gets right, its time and its memory.

    Those of others take part where they are installed (the extra `peers`). A tool's ratio is the median over turns of
    its time to that of the bare forward."""
    import pandas as pd

    from ..bench import tool_checks
    from ..bench import tools as bench

    table = tool_checks.check_tools()
    if write:
        table.to_csv(tool_checks.record(), index=False)
    if checks or not json_:
        print_frame(table, json_, "what each tool gets right, on tiny models")
    if not checks:
        timed = pd.concat([bench.bench_tools(shape, repeats, memory=memory) for shape in bench.SHAPES])
        if write:
            timed.to_csv(bench.record(), index=False)
        print_frame(timed, json_, "seconds per pass")
