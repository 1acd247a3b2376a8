"""The grid: layers at parity, the order of runs, resumption, records and what is said about them."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from mechanism.bench import steps as bench_steps
from mechanism.corpus.mixture import Column
from mechanism.corpus.tokenizer import load_tokenizer
from mechanism.nn.checkpoint import TrainingError
from mechanism.nn.training import Trainer
from mechanism.study.base import runs as training_runs
from mechanism.study.grid import english
from mechanism.study.grid.english import English, TextConfig, score
from mechanism.study.grids import load_grid
from mechanism.study.m_multi_head import demonstration
from mechanism.study.m_multi_head.grid import VARIANTS, Grid
from mechanism.study.m_multi_head.tables import Experiment
from mechanism.study.m_multi_head.training import EnglishWorkshop

ENGLISH_TOKENS = english.english_tokens
SMALL: dict[str, Any] = {
    "made_by": "m_multi_head.grid",
    "text": {"length": 8, "dev_windows": 6, "test_windows": 6},
    "vocab": 64,
    "frame": {"layers": 2, "every": 2, "heads": 1, "head_dim": 8, "context": 16},
    "baseline": {"hidden": 12, "experts": 7, "top_k": 1, "width": 32, "normalise": False},
    "train": {"tokens": 128, "batch": 4, "length": 8, "warmup": 1, "compile": False, "probes": []},
    "tuning": {"rates": [0.001, 0.01], "tokens": 64, "seed": 100},
    "blocks": {
        "plain": {"variants": ["dense", "heads2"], "seeds": 2},
        "ablation": {"variants": ["heads2_head"], "seeds": 1, "rate_of": {"block": "plain", "variant": "heads2"}},
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(training_runs.TOKENIZER)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Records, checkpoints and text of its own: 40 kinds of tokens in rows of ten."""
    rng = np.random.default_rng(0)
    ids = rng.choice(np.arange(300, 340), 2000).astype(np.int32)
    column = Column(ids, np.arange(0, 2001, 10), np.arange(200), np.arange(200) // 20)
    held = [(name, f"{name} {i}", np.array([0, *ids[i : i + 20 + i]])) for name in english.CORPORA for i in range(3)]
    texts = ({(name, "en"): column for name in english.CORPORA}, {"dev": held, "test": held})
    monkeypatch.setattr(english, "english_tokens", lambda tokenizer: texts)
    monkeypatch.setenv("MECHANISM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    return tmp_path


def write(folder, **changes):
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False))
    return load_grid(str(path))


def train(grid, **options):
    told = io.StringIO()
    grid.make(Console(file=told, width=200), **options)
    return told.getvalue()


def body(layer):
    parts = {name: part for name, part in layer.parts().items() if name != "router"}
    return sum(p.flops for p in parts.values()), sum(p.total for p in parts.values())


def test_the_committed_grid_is_at_exact_parity():
    grid = load_grid("mh_moe")

    def made(block: str, variant: str) -> Any:
        return grid.layer(block, variant)

    for block in ("plain", "shared", "bitnet"):
        own = {variant: made(block, variant) for variant in grid.blocks[block].variants}
        flops, parameters = body(own["sparse"])
        assert {body(layer) for variant, layer in own.items() if variant != "dense"} == {(flops, parameters)}
        assert body(own.get("dense", own["sparse"]))[0] == flops
    sizes = [(own.experts, own.width, own.top_k) for v in VARIANTS[1:5] for own in [made("plain", v)]]
    assert sizes == [(7, 256, 1), (14, 128, 2), (36, 96, 2), (81, 64, 3)]
    assert made("shared", "heads3").shared_width == 256
    assert grid.model("bitnet", "heads3").projections == made("bitnet", "dense").precision == "b1.58"
    one, two = (made("ablation", f"heads2_{name}") for name in ("head", "merge"))
    assert body(one) == body(two)
    assert (one.head, one.merge, two.head, two.merge) == (True, False, False, True)
    assert [made("plain", v).normalise for v in VARIANTS[1:5]] == [False, True, True, True]
    assert grid.size() == 61 + 5 * 14 + 34


def test_seed_zero_of_every_variant_comes_first_and_rates_before_it(place, monkeypatch):
    grid, order = write(place), []

    def made(self, run, shop, console, steps=None):
        order.append(run.name)
        run.record.mkdir(parents=True)
        (run.record / "result.json").write_text(json.dumps({"dev": {"loss": run.train.lr}, "step_seconds": 0.5}))
        return True

    monkeypatch.setattr(Grid, "make_run", made)
    train(grid)
    tried = [f"plain {v} rate {r}" for v in ("dense", "heads2") for r in (0.001, 0.01)]
    assert order == [
        *tried[:2], "plain dense seed 0", *tried[2:], "plain heads2 seed 0", "ablation heads2_head seed 0",
        "plain dense seed 1", "plain heads2 seed 1",
    ]  # fmt: skip
    assert len(order) == grid.size()
    assert grid.rate("ablation", "heads2_head") == grid.rate("plain", "heads2") == 0.001
    assert grid.remaining() == (0, 0)
    assert grid.summary() == "all 9 runs are there"
    train(grid)
    assert len(order) == 9


def test_a_run_in_parts_leaves_the_record_of_one(place):
    grid = write(place)
    shop = EnglishWorkshop(grid.text, grid.vocab)
    run = grid.tuning_runs("plain", "heads2")[0]
    console = Console(file=io.StringIO())
    assert not grid.make_run(run, shop, console, 1)
    assert not run.done
    assert grid.make_run(run, shop, console)
    parts = run.result()
    for path in run.record.iterdir():
        path.unlink()
    assert grid.make_run(run, shop, console)
    assert run.result()["dev"] == parts["dev"]
    assert not run.workspace.exists()


def test_records_of_a_whole_grid(place):
    grid = write(place)
    assert grid.remaining() == (9, None)
    assert "9 of 9 runs left" in train(grid, runs=2)
    assert grid.remaining()[0] == 7
    train(grid)
    assert not any(grid.missing_runs())
    run = grid.runs("plain", "heads2")[0]
    assert sum(path.stat().st_size for path in run.record.iterdir()) < 60_000
    found = run.result()
    windows = English(grid.text, load_tokenizer(training_runs.TOKENIZER)).windows["test"]
    assert found["test"]["tokens"] == windows.sizes.sum()
    chosen = np.array(found["selections"]["fiction"])
    assert found["layers"] == [1]
    own = np.array([windows.documents[d][0] == "fiction" for d in windows.document])
    assert chosen.sum() == (windows.sizes[own] + 1).sum() * 2 * 2  # two heads, two slots, the first token included
    table = grid.status().set_index("cell")
    assert table.loc["plain 2 heads", "runs"] == table.loc["plain 2 heads rates", "runs"] == "2 of 2"
    assert float(table.loc["plain dense", "ppl"]) > 1
    assert grid.complete("plain")


def test_a_rate_that_diverges_is_out_of_the_choice(place, monkeypatch):
    grid = write(place)
    shop, console, real = EnglishWorkshop(grid.text, grid.vocab), Console(file=io.StringIO()), Trainer.run

    def run(self, *arguments, **options):
        if self.config.lr < 0.01:
            raise TrainingError("the loss is nan at step 1; lower lr and start again")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "run", run)
    low, high = grid.tuning_runs("plain", "dense")
    assert grid.make_run(low, shop, console)
    assert grid.make_run(high, shop, console)
    assert grid.rate("plain", "dense") == 0.01
    assert grid.remaining()[0] == 7
    main = replace(low, tuning=False)
    assert grid.make_run(main, shop, console)  # so that it does not block the runs behind it
    assert main.done
    assert not main.usable
    assert "the loss is nan" in main.result()["diverged"]


def test_steps_are_timed_in_turns_and_half_a_batch_keeps_half(place):
    grid = write(place)
    table = bench_steps.bench_steps(grid, turns=3)
    assert len(table) == 2 * 3 * 2
    assert table.groupby(["seed", "turn"])["variant"].first().tolist() == ["dense", "heads2", "dense"] * 2
    assert (table["seconds"] > 0).all()
    assert (table.groupby("variant")["kept_bytes"].nunique() == 1).all()
    found = bench_steps.summary(grid, table)
    assert [case["variant"] for case in found["cases"]] == ["dense", "heads2"]
    assert found["cases"][0]["ratio"] == 1.0
    bench_steps.write(grid, table)
    kept = Experiment(grid).times
    assert kept is not None
    assert kept.equals(table)


def test_kept_bytes_are_those_counted_by_hand():
    """Two linear maps with a tanh between: each keeps its input, and tanh its output, which is the second's input."""

    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)

    toy: Any = object.__new__(Trainer)
    toy.model = Two()
    toy.batches = lambda step: np.zeros((6, 5))

    def losses(ids):
        x = torch.ones(ids[:, 1:].numel(), 4)
        return toy.model.second(torch.tanh(toy.model.first(x))).sum()

    toy.losses = losses
    assert bench_steps.kept_bytes(toy) == 4 * (4 + 8)


def test_the_address_follows_what_decides_the_numbers(place):
    grid = write(place)
    run = grid.tuning_runs("plain", "dense")[0]
    assert replace(run, block="other", variant="other").hash == run.hash
    assert replace(run, data="other").hash != run.hash
    assert replace(run, text=TextConfig(9)).hash != run.hash
    hashes = [r.hash for cell in grid.cells() for r in grid.tuning_runs(*cell)]
    assert len(set(hashes)) == len(hashes)


def test_what_cannot_be_run_is_one_sentence(place):
    with pytest.raises(FileNotFoundError, match=r"no grid at .*committed ones in .*mh_moe"):
        load_grid("nothing")
    with pytest.raises(ValueError, match="block plain has unknown variants heads7; use dense, sparse"):
        write(place, blocks={"plain": {"variants": ["heads7"], "seeds": 1}})
    with pytest.raises(TrainingError, match="the text has 41 kinds of tokens, the grid's vocab is 40"):
        train(write(place, vocab=40))


def test_every_token_of_a_window_is_scored_once(place, tokenizer):
    text = English(TextConfig(8, 100, 100), tokenizer)
    windows = text.windows["dev"]
    held = english.english_tokens(tokenizer)[1]["dev"]
    assert windows.sizes.sum() == sum(len(ids) - 1 for _, _, ids in held)
    model = load_grid("mh_moe").model("plain", "heads2")
    built = replace(model, vocab=64, layers=2).build().eval()
    found = score(built, windows, batch=5)
    first = windows.document == 0
    rows = zip(windows.ids[first], windows.sizes[first], strict=True)
    total = 0.0
    with torch.no_grad():
        for ids, size in rows:
            row = torch.as_tensor(ids[: size + 1])[None]
            logp = built(input_ids=row).logits.log_softmax(-1)[0, :-1].double()
            total -= float(logp.gather(1, row[0, 1:, None]).sum())
    assert found["nll"][0] == pytest.approx(total, rel=1e-4)
    capped = English(TextConfig(8, 2, 2), tokenizer).windows["dev"]
    assert len(capped.ids) == 2 * len(english.CORPORA)


def test_text_is_read_once_and_then_from_the_cache(place, tokenizer, monkeypatch):
    columns, held = english.english_tokens(tokenizer)
    monkeypatch.setattr(english, "english_tokens", ENGLISH_TOKENS)
    monkeypatch.setattr(english, "Mixture", lambda config, tokenizer: SimpleNamespace(columns=columns))
    monkeypatch.setattr(english, "_held_out", lambda tokenizer, split: iter(held[split]))
    english.english_tokens(tokenizer)
    monkeypatch.setattr(english, "Mixture", None)
    again, texts = english.english_tokens(tokenizer)
    assert list(again) == [(name, "en") for name in english.CORPORA]
    assert all(np.array_equal(vars(again[k])[n], v) for k in columns for n, v in vars(columns[k]).items())
    assert [(a, b) for a, b, _ in texts["dev"]] == [(a, b) for a, b, _ in held["dev"]]
    assert all(np.array_equal(a[2], b[2]) for a, b in zip(texts["test"], held["test"], strict=True))


def test_the_live_pair_reads_the_same_batches_and_shows_its_sub_tokens(place, tokenizer, monkeypatch):
    text = English(TextConfig(8, 8, 8), tokenizer)
    pair = demonstration.train_pair(text, demonstration.PairConfig(steps=2))
    assert {len(run.losses) for run in pair.values()} == {2}
    word = tokenizer.decode([310, 311])
    monkeypatch.setattr(text, "encode", lambda given: np.array([0, 11, 12]))
    experts = demonstration.sub_token_experts(pair["heads3"].model, text, word)
    assert dict(experts.sizes) == {"token": 2, "layer": 2, "head": 3, "slot": 3}
    table = demonstration.routes(experts, 1)
    assert len(table) == 2
    assert table["distinct"].between(3, 9).all()


def test_words_without_tokens_in_the_text_are_refused(place, tokenizer):
    with pytest.raises(ValueError, match="does not occur in the English text"):
        English(TextConfig(), tokenizer).encode("zebra")
