"""What watching and editing cost: paired timings against the bare forward, and peak memory of streaming capture."""

import multiprocessing
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM, OlmoeConfig, PreTrainedModel

from ..models.memory import peak_memory
from ..nn.lm import LMConfig
from ..study.base.turns import by_case, compared, in_turns, timed
from ..trace import Ablate, Activate, Forbid, ForceSelection, RoutingStats, ScaleWeight, SoftSteer, attach, pairs

BATCH, LENGTH = 8, 256
Case = tuple[Callable[[], AbstractContextManager], dict[str, Any]]


def _model(device: str = "cpu", shape: str = "embedded") -> PreTrainedModel:
    """A model of a shape with random weights, on which its speed does not depend: `embedded`, the embedded model's, in
    float32, or `olmoe`, that of OLMoE-1B-7B, in bfloat16.

    Raises:
        ValueError: another shape.
    """
    if shape not in ("embedded", "olmoe"):
        raise ValueError(f"unknown shape {shape!r}; use embedded or olmoe")
    torch.manual_seed(0)
    with torch.device(device):
        if shape == "embedded":
            return LMConfig().build().eval()
        return AutoModelForCausalLM.from_config(OlmoeConfig(intermediate_size=1024), dtype=torch.bfloat16).eval()


def _ids(model: PreTrainedModel, seed: int) -> torch.Tensor:
    found = torch.randint(model.config.vocab_size, (BATCH, LENGTH), generator=torch.Generator().manual_seed(seed))
    return found.to(model.device)


def paired(model: PreTrainedModel, cases: dict[str, Case], repeats: int) -> list[dict[str, Any]]:
    """Seconds of a forward under each case, in turns, against those under the case `bare`; see `compared`."""

    def seconds(case: Case, turn: int) -> float:
        context, options = case
        ids = _ids(model, turn + 2)
        with torch.no_grad(), context():
            return timed(lambda: model(input_ids=ids, use_cache=False, **options), model.device)

    return compared(by_case(in_turns(cases, seconds, repeats)), "bare")


def bench_capture(
    repeats: int = 30, tokens: tuple[int, int] = (20_480, 204_800), device: str = "cpu", shape: str = "embedded"
) -> dict[str, Any]:
    """Cost of capture. `ratio`: streaming capture by bare forward.

    Args:
        tokens: numbers of tokens whose peak memory is measured, on a CPU; device, shape: see `_model`.
    """
    model = _model(device, shape)
    cases: dict[str, Case] = {
        "bare": (nullcontext, {}),
        "streaming capture": (lambda: attach(model, keep=False, stats=RoutingStats()), {}),
        "full capture": (lambda: attach(model), {}),
        "output_router_logits": (nullcontext, {"output_router_logits": True}),
    }
    rows = paired(model, cases, repeats)
    found = {"name": "capture", "ratio": rows[1]["ratio"], "cases": rows}
    if (device, shape) != ("cpu", "embedded"):
        return found | {"memory": []}
    memory = [{"case": f"peak memory, {n:,} tokens", "megabytes": _peak(n)} for n in tokens]
    full = tokens[1] * LMConfig().layers * LMConfig().experts * 4 / 1e6
    memory.append({"case": f"full logits of {tokens[1]:,} tokens", "megabytes": round(full, 1)})
    return found | {"memory": memory}


def bench_intervene(repeats: int = 30, device: str = "cpu", shape: str = "embedded") -> dict[str, Any]:
    """Cost of interventions on every layer. `ratio`: the dearest by the bare forward."""
    model = _model(device, shape)
    target = pairs(range(model.config.num_hidden_layers), 3)
    edits = (
        SoftSteer(target, strength=0.5), Activate(target), ForceSelection(target), Forbid(target),
        ScaleWeight(target, factor=0.5), Ablate(target), Ablate(target, mode="reroute"),
    )  # fmt: skip
    names = [f"Ablate {edit.mode}" if isinstance(edit, Ablate) else type(edit).__name__ for edit in edits]
    edited = {name: (partial(attach, model, [edit], keep=False), {}) for name, edit in zip(names, edits, strict=True)}
    rows = paired(model, {"bare": (nullcontext, {}), **edited}, repeats)
    return {"name": "intervene", "ratio": max(row["ratio"] for row in rows[1:]), "cases": rows}


def _peak(tokens: int) -> float:
    """Peak resident memory in MB of a fresh process that streams so many tokens through capture."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_stream, (tokens,))


def _stream(tokens: int) -> float:
    model, stats = _model(), RoutingStats()
    with torch.no_grad(), attach(model, keep=False, stats=stats):
        for i in range(tokens // (BATCH * LENGTH)):
            model(input_ids=_ids(model, i), use_cache=False)
    return round(peak_memory() / 1e6, 1)
