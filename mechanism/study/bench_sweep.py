"""What an exact sweep costs by whole passes and by restarts, how equal the two are, and what a race finds for less."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..measure.causal import top_count, top_experts
from ..trace.proof import Way
from .effects import BatchSweep
from .passes import encode
from .search import SearchConfig, effects_of, find_drivers
from .sweep import Plan, SweepOptions, sweep
from .sweep_text import SweepConfig, passages


def bench_sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SweepConfig = SweepConfig(),
    batches: int = 3,
    per_layer: int = 2,
    search: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Time whole passes against restarts on the same experts and batches in turn; then sweep exactly and race.

    Args:
        batches: of the first mode, one of each other; per_layer: experts ablated in each layer for the comparison.

    Returns:
        `name`; `cases`, one row a mode: seconds of both, `ratio` (median over batches), `max_error` and `max_kl`, nats
        per token; `ratio` of the first mode; `search`: `recall` of the exact top 5 %, `cost` and `seconds` as shares of
        the exact sweep's, `undecided`; `megabytes`, the largest resident memory of the process.
    """
    texts = passages(config)
    ids = encode(tokenizer, [p.text for p in texts], config.max_tokens)
    plan = Plan(model, ids, tokenizer.pad_token_id, config.modes, SweepOptions())
    say(plan.describe())
    wanted = {
        site.layer: np.linspace(0, site.num_experts - 1, per_layer).round().astype(int).tolist() for site in plan.sites
    }
    middle = np.linspace(0, len(plan.batches) - 1, batches + 2).round().astype(int)[1:-1]
    chosen = [plan.batches[i] for i in dict.fromkeys(middle.tolist())]
    cases = []
    for number, mode in enumerate(config.modes):
        cases.append(compare(plan, mode, chosen if number == 0 else chosen[:1], wanted))
        say(f"{mode}: {cases[-1]['ratio']} times")
    found: dict[str, Any] = {"name": "sweep", "ratio": cases[0]["ratio"], "cases": cases}
    if search:
        found["search"] = bench_search(model, tokenizer, replace(config, modes=config.modes[:1]), say)
    found["megabytes"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return found


def compare(
    plan: Plan, mode: str, batches: Sequence[Sequence[int]], wanted: Mapping[int, Sequence[int]]
) -> dict[str, Any]:
    """One mode, both ways in turn on each batch; the clean pass, which both need, counts for both."""
    fast = replace(plan.settings, modes=(mode,), keep=True)
    whole = replace(fast, way=Way({}, False, {}))
    seconds, error, largest = [], 0.0, 0.0
    for batch in batches:
        ids, mask = plan.padded(batch)
        pair = []
        for settings in (whole, fast):
            start = time.perf_counter()
            found = BatchSweep(plan.model, ids, mask, settings).run(wanted)
            pair.append((time.perf_counter() - start, found.token_kl))
        seconds.append([pair[0][0], pair[1][0]])
        error = max(error, float(np.nanmax(np.abs(pair[0][1] - pair[1][1]))))
        largest = max(largest, float(np.nanmax(pair[0][1])))
    slow, quick = np.array(seconds).T
    return {
        "mode": mode, "experts": sum(map(len, wanted.values())), "whole passes, s": round(float(slow.sum()), 2),
        "restarts, s": round(float(quick.sum()), 2), "ratio": round(float(np.median(slow / quick)), 3),
        "max_error": float(f"{error:.2g}"), "max_kl": round(largest, 4),
        "restarted": plan.settings.way.via.get(mode, "not proven"),
    }  # fmt: skip


def bench_search(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SweepConfig, say: Callable[[str], None]
) -> dict[str, Any]:
    """Recall and cost of the race against the exact sweep on the same text."""
    start = time.perf_counter()
    exact = sweep(model, tokenizer, config, say=say)
    middle = time.perf_counter()
    found = find_drivers(model, tokenizer, SearchConfig(config), say=say)
    end = time.perf_counter()
    kl = exact["kl"].values[0]
    mean = effects_of(kl, exact["tokens"].values, passages(config)).mean()
    top = top_experts(mean, top_count(mean.size))
    recall = float(top.ravel()[found.race.top].mean())
    return {
        "segments": len(kl), "experts": mean.size, "top": int(top.sum()), "recall": round(recall, 4),
        "cost": round(found.race.spent, 4), "seconds": round((end - middle) / (middle - start), 4),
        "undecided": found.race.undecided, "exact_seconds": round(middle - start, 1),
    }  # fmt: skip
