"""What some runs of the cross-lingual grid measure besides: wrong languages, 8-bit experts, a new language, time."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...corpus.language_stream import UNTOLD, LanguageStream, LanguageStreamConfig
from ...nn.adapt import Tuning
from ...nn.allocation import allocated_routers
from ...nn.checkpoint import dump_json
from ...nn.distil import feed_forward_inputs
from ...nn.int8 import KERNELS, Int8Experts, saved_share
from ...nn.language import tell
from ...nn.optim import build_optimisers
from ...nn.training import Trainer
from ...nn.variants import VariantConfig
from ..base.turns import by_case, in_turns, timed
from .held_out import bits_table, macro_loss, speaking, use_of_experts
from .run import LanguageRun

TURNS = 15
BALANCE_TURNS = 60
FACTOR, RATES = 3.0, 6
"""Between neighbouring rates that are tried for a method of adaptation, and how many at most."""
Start = Callable[[], tuple[PreTrainedModel, int]]
"""Makes the model that a method of adaptation begins with, and counts what it tunes."""


def measure_wrong(run: LanguageRun, trainer: Trainer, tokenizer: PreTrainedTokenizerFast) -> dict:
    """`wrong.csv`: loss and mis-routing of each language when it is told right, and when it is told another language.

    Columns `lang`, `told`, `bits`, `bytes`, `misrouted`: share of tokens without an expert of their true language's
    group, mean over layers. Two other languages stand for all.
    """
    codes, model = run.stream.languages, trainer.model.eval()
    rng, rows = np.random.default_rng(run.train.seed), []
    for lang, code in enumerate(codes):
        others = rng.choice([i for i in range(len(codes)) if i != lang], size=min(2, len(codes) - 1), replace=False)
        for said in (lang, *map(int, others)):
            bits = bits_table(model, tokenizer, [code], [said], "test", run.held.segments)[["bits", "bytes"]].sum()
            missed = misrouted_share(model, tokenizer, code, lang, said, run.held.routed)
            rows.append({"lang": code, "told": codes[said], **bits, "misrouted": round(missed, 5)})
    pd.DataFrame(rows).to_csv(run.record / "wrong.csv", index=False)
    return {}


def misrouted_share(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, code: str, lang: int, said: int, segments: int
) -> float:
    """Share of tokens of a language, told as another, without an expert of its own group; groups have one expert."""
    use = use_of_experts(model, tokenizer, [code], [said], "test", segments)
    reached = []
    for layer, router in enumerate(allocated_routers(model)):
        own = [e for e, group in enumerate(router.owners) if group == router.groups[lang]]
        reached.append(float(use.isel(lang=0, layer=layer, expert=own).sum() / use["tokens"][0]))
    return 1 - float(np.mean(reached))


def measure_int8(run: LanguageRun, trainer: Trainer, tokenizer: PreTrainedTokenizerFast) -> dict:
    """`int8`: loss with experts used less than the mean in 8 bits, memory that they save, speed against full layers."""
    model, codes = trainer.model.eval(), run.stream.languages
    told, shares = run.told_ids, LanguageStream(run.stream, tokenizer).language_shares
    use = use_of_experts(model, tokenizer, codes, told, "dev", run.held.routed)
    load = sum(
        use.sel(lang=code).values / use.sel(lang=code).sum("expert").values[:, None] * shares[code] for code in codes
    )
    rare = [[e for e, share in enumerate(layer) if share < 1 / len(layer)] for layer in np.asarray(load)]
    found: dict = {"rare": sum(map(len, rare)), "experts": int(np.asarray(load).size), "loss": {}, "speed": {}}
    for kernel in KERNELS:
        stored = run.train.model.build().eval()
        stored.load_state_dict(model.state_dict())
        for layer, own in zip(stored.model.layers, rare, strict=True):
            layer.mlp.experts = Int8Experts(layer.mlp.experts, own, kernel)
        found["saved"] = saved_share(next(e for layer in stored.model.layers if (e := layer.mlp.experts).rare))
        table = bits_table(stored, tokenizer, codes, told, "test", run.held.segments)
        found["loss"][kernel] = round(macro_loss(table), 5)
        found["speed"][kernel] = speed_ratios(model, stored, trainer, told[0])
    return {"int8": found}


@torch.no_grad()
def speed_ratios(model: PreTrainedModel, stored: PreTrainedModel, trainer: Trainer, lang: int) -> list[float]:
    """Time of all feed-forward layers of a model over that of another one's, in turns, on the inputs of a batch."""
    given = trainer.batches(0)
    ids = torch.as_tensor(given[0] if isinstance(given, tuple) else given, dtype=torch.long)[:, :-1]
    with speaking(model, lang), feed_forward_inputs(model) as inputs:
        model(input_ids=ids, use_cache=False)
    shaped = [x.view(*ids.shape, -1) for x in inputs]

    def seconds(one: PreTrainedModel, turn: int) -> float:
        with speaking(one, lang):
            return timed(lambda: [layer.mlp(x) for layer, x in zip(one.model.layers, shaped, strict=True)], one.device)

    return _ratios(in_turns({"full": model, "stored": stored}, seconds, TURNS, warm=1))


def _ratios(table: pd.DataFrame) -> list[float]:
    """Seconds of the first case over those of the second, by turn."""
    first, second = by_case(table).values()
    return (np.array(first) / second).round(4).tolist()


def measure_balance(run: LanguageRun, trainer: Trainer, tokenizer: PreTrainedTokenizerFast) -> dict:
    """`balance_time`: time of training steps with the balance loss over that without, in turns of which every other
    begins with the loss; once a cell."""
    if run.train.seed:
        return {}
    folder = run.workspace / "balance"
    pair = {
        name: Trainer(replace(run.train, balance=weight), trainer.batches, folder / name)
        for name, weight in (("with", run.train.balance), ("without", 0.0))
    }
    steps = in_turns(pair, lambda one, turn: one.advance()["seconds"], BALANCE_TURNS, warm=1, rotate=True)
    return {"balance_time": _ratios(steps.sort_values("case", key=lambda cases: cases == "without", kind="stable"))}


def measure_adaptation(run: LanguageRun, trainer: Trainer, tokenizer: PreTrainedTokenizerFast) -> dict:
    """`adapt.csv`: losses along the learning of the new language by each method at the grid's rate.

    Columns `method`, `tuned` (parameters), `rate`, `step`, `lang`, `bits`, `bytes`. The new language has no id.
    """
    return _adaptations(run, trainer, tokenizer, lambda *_: (run.adaptation.lr, {}))


def measure_tuned_adaptation(run: LanguageRun, trainer: Trainer, tokenizer: PreTrainedTokenizerFast) -> dict:
    """`adapt.csv` as `measure_adaptation`, each method at the rate with which the new language's dev text has the
    lowest loss at the end; `rates`: that loss by method and rate."""

    def rate(start: Start) -> tuple[float, dict[float, float]]:
        def loss(rate: float) -> float:
            model, _ = start()
            for _ in _adapt(run, model, tokenizer, rate, ()):
                pass
            found = macro_loss(
                bits_table(model.eval(), tokenizer, [run.new_language], [UNTOLD], "dev", run.held.segments)
            )
            return found if math.isfinite(found) else math.inf

        return lowest(loss, run.adaptation.lr)

    return _adaptations(run, trainer, tokenizer, rate)


def lowest(loss: Callable[[float], float], start: float) -> tuple[float, dict[float, float]]:
    """The rate with the lowest loss, and the loss of each that was tried: `start` and its neighbours, then on in steps
    of `FACTOR` while the lowest stands at an end, `RATES` at most. A loss that is not finite is none."""
    tried = {}
    for power in (0, -1, 1):
        tried[power] = loss(start * FACTOR**power)
    while len(tried) < RATES:
        best = min(tried, key=tried.__getitem__)
        if min(tried) < best < max(tried):
            break
        further = best - 1 if best == min(tried) else best + 1
        tried[further] = loss(start * FACTOR**further)
    rates = {start * FACTOR**power: tried[power] for power in sorted(tried)}
    return min(rates, key=rates.__getitem__), rates


def _adaptations(
    run: LanguageRun, trainer: Trainer, tokenizer: PreTrainedTokenizerFast,
    rate_of: Callable[[Start], tuple[float, dict[float, float]]],
) -> dict:  # fmt: skip
    """Write `adapt.csv`; what a method found is kept beside the checkpoints, and not computed again.

    Args:
        rate_of: a method's rate, and the dev loss of each that was tried, given how its model is made.
    """
    config = run.train.model
    assert isinstance(config, VariantConfig)
    state = trainer.model.state_dict()
    use = use_of_experts(trainer.model.eval(), tokenizer, [run.new_language], [UNTOLD], "dev", run.held.routed)
    rows, tried = [], {}
    for tuning in run.adaptation.tunings():
        kept = run.workspace / "adapted" / f"{tuning.name}.json"
        chosen = np.argsort(-use.isel(lang=0).values, -1)[:, : tuning.size].tolist() if tuning.picks else []

        def start(tuning: Tuning = tuning, chosen: list = chosen) -> tuple[PreTrainedModel, int]:
            model = tuning.load(config, state)
            return model, tuning.freeze(model, chosen)

        if not kept.exists():
            rate, losses = rate_of(start)
            model, tuned = start()
            found = [
                table.groupby("lang", as_index=False)[["bits", "bytes"]].sum().assign(step=step)
                for step, table in _adapt(run, model, tokenizer, rate, run.adaptation.marks)
            ]
            path = pd.concat(found).assign(method=tuning.name, tuned=tuned, rate=rate)
            kept.parent.mkdir(exist_ok=True)
            dump_json(kept, {"path": path.to_dict("list"), "tried": losses})
        own = json.loads(kept.read_text("utf-8"))
        rows.append(pd.DataFrame(own["path"]))
        tried[tuning.name] = own["tried"]
    pd.concat(rows).to_csv(run.record / "adapt.csv", index=False)
    return {"adapted": list(tried)} | ({"rates": tried} if any(tried.values()) else {})


def _adapt(
    run: LanguageRun, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rate: float, marks: Sequence[int]
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Train on the new language; yields step and losses of it and of the others at each mark."""
    plan, codes = run.adaptation, (run.new_language, *run.stream.languages)
    told = [UNTOLD, *run.told_ids]
    segments = max(1, run.held.segments // 3)
    stream = LanguageStream(LanguageStreamConfig((run.new_language,), told=False), tokenizer)
    optimisers = build_optimisers(model, rate, weight_decay=0.0)
    for step in range(plan.steps + 1):
        if step in marks:
            yield step, bits_table(model.eval(), tokenizer, codes, told, "test", segments)
        if step < plan.steps:
            _adapt_step(model.train(), stream, run, step, optimisers, rate)


def _adapt_step(
    model: PreTrainedModel, stream: LanguageStream, run: LanguageRun, step: int, optimisers: list, rate: float
) -> None:
    ids, lang = stream.told_batch(run.train.seed, step, run.adaptation.batch, run.train.length)
    tokens = torch.as_tensor(ids, dtype=torch.long)
    with tell(model, torch.as_tensor(lang)):
        model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / run.adaptation.steps)
        optimiser.step()
        optimiser.zero_grad()


Measure = Callable[[LanguageRun, Trainer, PreTrainedTokenizerFast], dict]
MEASURES: dict[str, Measure] = {
    "wrong": measure_wrong, "int8": measure_int8, "adapt": measure_adaptation,
    "adapt tuned": measure_tuned_adaptation, "balance": measure_balance,
}  # fmt: skip
