"""Sweeps cut into shards: ranked, merged exactly, resumed, and finished by an engine that loses a worker."""

import copy
import os
import signal
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from mechanism.cli.sweep import workers
from mechanism.models.load import load_model
from mechanism.models.passes import encode, padding_token
from mechanism.study.base.records import address
from mechanism.study.d_domains import shards
from mechanism.study.d_domains import sweep as sweeps
from mechanism.study.d_domains.domain_text import SweepConfig, passages
from mechanism.study.d_domains.shards import finish, merge
from mechanism.study.d_domains.sweep import Plan, SweepOptions, record_key, sweep

CONFIG = SweepConfig(("tech", "code"), ("en", "de"), max_segments=4, max_tokens=40, modes=("zero",))
SMALL = SweepOptions(memory=0.01)


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", "cpu")


@pytest.fixture(scope="module")
def whole(tiny):
    return sweep(tiny[0], tiny[1], CONFIG, SMALL).found


def plan(tiny, options=SMALL) -> tuple[Plan, int]:
    model, tokenizer = tiny
    ids = encode(tokenizer, [p.text for p in passages(CONFIG)], CONFIG.max_tokens)
    return Plan(model, ids, padding_token(tokenizer), CONFIG.modes, options), len(ids)


def test_texts_are_balanced_from_the_start():
    texts = passages(SweepConfig(max_segments=6))
    labels = np.array([f"{p.domain} {p.lang}" for p in texts])
    for end in (len(texts) // 4, len(texts) // 2):
        for one in np.unique(labels):
            assert abs((labels[:end] == one).sum() - (labels == one).sum() * end / len(texts)) <= 1.5
    assert passages(SweepConfig(max_segments=6)) == texts
    assert passages(SweepConfig(max_segments=6, seed=1)) != texts


def test_layer_shards_and_processes_change_nothing(tiny, whole):
    cut = sweep(tiny[0], tiny[1], CONFIG, replace(SMALL, layer_shards=3)).found
    xr.testing.assert_identical(whole, cut)
    with workers("local", jobs=2):
        spread = sweep(tiny[0], tiny[1], CONFIG, replace(SMALL, source=("tiny", "cpu", "float32"))).found
    xr.testing.assert_allclose(whole, spread)
    assert whole.attrs["failed"] == 0
    assert whole.attrs["fallback"] == "{}"


def test_what_is_asked_is_swept_and_its_drivers_are_ranked(tiny):
    """A reader's own model from Python, in one call."""
    asked: dict[str, Any] = {"data": "tech", "languages": ["en"], "max_segments": 2, "max_tokens": 12}
    found = sweep(tiny[0], tiny[1], options=SMALL, modes="zero", **asked)
    assert found.config == SweepConfig(("tech",), ("en",), 2, 12, modes=("zero",))
    table = found.drivers(3)
    assert table["zero"].is_monotonic_decreasing
    assert found.drivers()[["layer", "expert"]].iloc[0].tolist() == table[["layer", "expert"]].iloc[0].tolist()
    assert table["zero"].iloc[0] == found.effect.max()


def test_a_sweep_goes_on_where_it_stopped(tiny, whole, tmp_path, monkeypatch):
    options = replace(SMALL, folder=tmp_path, layer_shards=2)
    seen = []

    def stop(done: float, total: float) -> None:
        seen.append(done / total)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(tiny[0], tiny[1], CONFIG, options, progress=stop)
    kept = list(tmp_path.rglob("*.npz"))
    assert len(kept) == 2
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    run, ran = shards.run_job, []

    def counted(job: shards.Job) -> shards.Results:
        ran.append(job.key)
        return run(job)

    monkeypatch.setattr(shards, "run_job", counted)
    xr.testing.assert_identical(whole, sweep(tiny[0], tiny[1], CONFIG, options).found)
    own, _ = plan(tiny, options)
    assert len(ran) == len(own.jobs()) - 1, "only what was not kept whole is run again"


def test_shards_of_another_model_are_not_taken(tiny, whole, tmp_path):
    options = replace(SMALL, folder=tmp_path)
    sweep(tiny[0], tiny[1], CONFIG, options)
    other = copy.deepcopy(tiny[0])
    with torch.no_grad():
        other.model.layers[1].mlp.experts.down_proj.mul_(0.5)
    found = (sweep(other, tiny[1], CONFIG, own).found for own in (options, SMALL))
    xr.testing.assert_identical(*found)
    xr.testing.assert_identical(sweep(tiny[0], tiny[1], CONFIG, options).found, whole)


@pytest.mark.parametrize("where", [nullcontext, partial(workers, "local")])
def test_each_shard_is_kept_as_soon_as_it_is_done(where, tiny, tmp_path, monkeypatch):
    """Also where the backend hands over whole lists, as that of a single process does."""
    own, _ = plan(tiny, replace(SMALL, layer_shards=4))
    jobs, run = own.jobs(), shards.run_job
    left = iter(jobs[:2])

    def stop(job):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return run(job)

    monkeypatch.setattr(shards, "run_job", stop)
    with where(), pytest.raises(KeyboardInterrupt, match=rf"2 of {len(jobs)} shards are kept"):
        list(finish(jobs, tmp_path))
    assert {path.stem for path in tmp_path.iterdir()} == {job.key for job in jobs[:2]}


def test_interruption_says_what_is_kept(tiny, tmp_path, monkeypatch):
    own, _ = plan(tiny)

    def stop(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "run_job", stop)
    with pytest.raises(KeyboardInterrupt, match=r"0 of \d+ shards are kept in .*goes on from there"):
        list(finish(own.jobs(), tmp_path))


def test_a_missing_or_doubled_shard_is_refused(tiny, tmp_path):
    own, size = plan(tiny)
    parts = list(finish(own.jobs(), tmp_path))
    with pytest.raises(ValueError, match="missing or in several shards"):
        merge(parts[1:], size, [site.layer for site in own.sites])
    with pytest.raises(ValueError, match="missing or in several shards"):
        merge([*parts, parts[0]], size, [site.layer for site in own.sites])


@pytest.mark.filterwarnings("default")
def test_a_lost_worker_changes_nothing(tiny, whole, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        own, size = plan(tiny, replace(SMALL, layer_shards=4, source=("tiny", "cpu", "float32")))
        parts, victim = [], cluster.workers[0].pid
        with workers("dask", address=cluster.scheduler_address):
            for part in finish(own.jobs(), tmp_path / "kept"):
                parts.append(part)
                if len(parts) == 1:
                    os.kill(victim, signal.SIGKILL)
    assert len(parts) == len(own.jobs()) > 4
    merged = merge(parts, size, [site.layer for site in own.sites])
    np.testing.assert_allclose(merged["kl"], whole["kl"].values, rtol=1e-5, atol=1e-7)
    assert (merged["selections"] == whole["selections"].values).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: workers("spark").__enter__(), "spark"),
        (lambda: workers("local", jobs=0).__enter__(), "too few"),
        (lambda: sweep(*load_model("tiny", "cpu"), modes=["reroute"]), "ranked by zero ablation"),
        (lambda: SweepConfig(modes=("nought",)), "modes of ablation"),
        (lambda: SweepConfig(max_segments=0), "at least one segment"),
        (lambda: passages(SweepConfig(("code",), ("de",))), "no text of the test split"),
        (lambda: workers("ray").__enter__(), "engine ray is not installed"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()


def test_a_folder_of_results_is_found_by_what_was_asked(tiny, tmp_path: Path):
    first, _ = plan(tiny)
    again, _ = plan(tiny)
    other, _ = plan(tiny, replace(SMALL, layer_shards=2))
    assert first.key == again.key != other.key


def test_results_of_another_first_token_are_not_taken(tiny, monkeypatch):
    """Shards and records made when the opening token was ablated too are other results."""
    own, _ = plan(tiny)
    known, (key, data) = own.key, record_key("tiny", CONFIG, "float32")
    monkeypatch.setattr(sweeps, "FIRST", 0)
    assert own.key != known
    assert address(record_key("tiny", CONFIG, "float32")[0], data) != address(key, data)
