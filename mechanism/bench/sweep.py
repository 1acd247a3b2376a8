"""What an exact sweep costs by whole passes and by restarts, how equal the two are, and what a race finds for less."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..corpus.text import even
from ..measure.causal import top_count, top_experts
from ..models.load import load_model
from ..models.memory import peak_memory
from ..models.passes import encode, padding_token
from ..study.base.records import recorded
from ..study.d_domains.domain_text import SWEEP, SweepConfig, passages
from ..study.d_domains.driver_experts import Swept
from ..study.d_domains.effects import BatchSweep
from ..study.d_domains.search import SearchConfig, effects_of, find_drivers, recall_bound, replayed
from ..study.d_domains.sweep import Plan, SweepOptions, others, record_key
from ..trace.proof import Way

PER_LAYER = 2
"""Experts of a layer that whole passes ablate."""


def bench_sweep(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SweepConfig = SWEEP,
    batches: int = 1,
    search: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Time whole passes against restarts, batch by batch; then sweep all texts exactly, and race.

    Args:
        batches: swept both ways; by whole passes two experts of each layer, evenly spread, whose time is taken for all
            experts; by restarts all of them.

    Returns:
        `name`; `cases`, one row a mode: seconds of both for all experts, `ratio` (median over batches), `max_error` and
        `max_kl`, nats at a token, and `rerouted`, the share of tokens that differ by more than 1e-5: rounding decided a
        near tie of a later router; `ratio` of the first mode; `search`: `recall` of the exact top 5 %, `cost` and
        `seconds` as shares of the exact sweep's, `undecided`; `megabytes`, the largest resident memory of the process.
    """
    texts = passages(config)
    ids = encode(tokenizer, [p.text for p in texts], config.max_tokens)
    plan = Plan(model, ids, padding_token(tokenizer), config.modes, SweepOptions(memory=0.5))
    say(plan.describe())
    chosen = even(plan.batches, batches + 2)[1:-1] or plan.batches[:1]
    cases = []
    for mode in config.modes:
        cases.append(compare(plan, mode, chosen))
        say(f"{mode}: {cases[-1]['ratio']} times, differs by at most {cases[-1]['max_error']}")
    found: dict[str, Any] = {"name": "sweep", "ratio": cases[0]["ratio"], "cases": cases}
    if search:
        found["search"] = bench_search(model, tokenizer, replace(config, modes=config.modes[:1]), say)
        say("race: " + ", ".join(f"{name} {value}" for name, value in found["search"].items()))
    found["megabytes"] = round(peak_memory() / 1e6, 1)
    say(f"largest resident memory {found['megabytes']:.0f} MB")
    return found


def compare(plan: Plan, mode: str, batches: Sequence[Sequence[int]]) -> dict[str, Any]:
    """One mode, both ways on each batch. The clean pass counts once for each way."""
    fast = replace(plan.settings, modes=(mode,), keep=True)
    whole = replace(fast, way=Way({}, False, {}))
    experts = sum(site.num_experts for site in plan.sites)
    wanted = {site.layer: even(range(site.num_experts), PER_LAYER) for site in plan.sites}
    few = sum(map(len, wanted.values()))
    seconds, error, largest, far, seen = [], 0.0, 0.0, 0, 0
    for batch in batches:
        ids, mask = plan.padded(batch)
        start = time.perf_counter()
        slow = BatchSweep(plan.model, ids, mask, whole)
        clean = time.perf_counter() - start
        naive = slow.run(wanted).token_kl
        middle = time.perf_counter()
        quick = BatchSweep(plan.model, ids, mask, fast).run().token_kl
        seconds.append([clean + (middle - start - clean) * experts / few, time.perf_counter() - middle])
        assert naive is not None
        assert quick is not None
        for at, site in enumerate(plan.sites):
            one, two = naive[..., at, wanted[site.layer]], quick[..., at, wanted[site.layer]]
            apart = np.abs(one - two)[~np.isnan(one)]
            error, largest = max(error, float(apart.max())), max(largest, float(np.nanmax(one)))
            far, seen = far + int((apart > 1e-5).sum()), seen + apart.size
    first, second = np.array(seconds).T
    return {
        "mode": mode, "experts": experts, "by whole passes": few, "whole passes, s": round(float(first.sum()), 2),
        "restarts, s": round(float(second.sum()), 2), "ratio": round(float(np.median(first / second)), 3),
        "max_error": float(f"{error:.2g}"),
        "rerouted": float(f"{far / seen:.2g}"), "max_kl": round(largest, 4),
        "restarted": plan.settings.way.via.get(mode, "not proven"),
    }  # fmt: skip


def bench_search(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SweepConfig, say: Callable[[str], None]
) -> dict[str, Any]:
    """Recall and cost of the race against the exact sweep on the same text."""
    texts = passages(config)
    ids = encode(tokenizer, [p.text for p in texts], config.max_tokens)
    start = time.perf_counter()
    exact = Plan(model, ids, padding_token(tokenizer), config.modes).run()
    middle = time.perf_counter()
    found = find_drivers(model, tokenizer, SearchConfig(config), say=say)
    end = time.perf_counter()
    kl = exact["kl"][0]
    mean = effects_of(kl, exact["tokens"], texts).mean()
    top = top_experts(mean, top_count(mean.size))
    recall = float(top.ravel()[found.race.top].mean())
    return {
        "segments": len(kl), "experts": mean.size, "top": int(top.sum()), "recall": round(recall, 4),
        "cost": round(found.race.spent, 4), "seconds": round((end - middle) / (middle - start), 4),
        "undecided": found.race.undecided, "exact_seconds": round(middle - start, 1),
    }  # fmt: skip


BUDGETS = (0.04, 0.06, 0.08, 0.1)  # shares of the exact sweep's cost


def bench_race(spec: str, orders: int = 100, budgets: Sequence[float] = BUDGETS) -> list[dict[str, Any]]:
    """Recall against cost of the race, replayed on the recorded sweeps of a model and its other training seeds: a row a
    model and budget, with `recall` (mean over orders) and its lower bound `at least`, `cost` (mean) and the `largest`
    as shares of the exact sweep's multiplications, `undecided` (mean), and `wrong orders`, in which some expert was
    surely in or out and should not have been.

    Raises:
        FileNotFoundError: the model's sweep is not recorded.
    """
    own = recorded(*record_key(spec))
    if own is None:
        raise FileNotFoundError(f"no sweep of {spec} is recorded; make it by `mechanism sweep {spec}`")
    model, rows = load_model(spec, "cpu", "float32", moe=True)[0], []
    for name, swept in ({spec: Swept(own)} | others(spec)).items():
        for budget in budgets:
            races = replayed(swept, model, SearchConfig(budget=budget), orders)
            rows.append({
                "model": name, "budget": budget, "orders": orders, "recall": round(float(races["recall"].mean()), 4),
                "at least": round(recall_bound(races["recall"]), 4), "cost": round(float(races["cost"].mean()), 4),
                "largest": round(float(races["cost"].max()), 4),
                "undecided": round(float(races["undecided"].mean()), 1),
                "wrong orders": int((races["wrongly"] > 0).sum()),
            })  # fmt: skip
    return rows
