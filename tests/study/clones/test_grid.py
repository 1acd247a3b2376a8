"""The grid of clone languages: every kind of run on a toy size, and laws of what is kept of it."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from rich.console import Console

from mechanism.corpus.library import committed
from mechanism.corpus.mixture import Column
from mechanism.corpus.tokenizer import load_tokenizer
from mechanism.study.base import runs as training_runs
from mechanism.study.clones import grid as clones
from mechanism.study.clones.grid import ENGLISH, PROBES, SEGMENTS, CloneGrid
from mechanism.study.clones.routing import HeldOut, held_segments
from mechanism.study.grids import load_grid

TOY: dict[str, Any] = {
    "made_by": "clones.grid",
    "model": {"vocab": 4096, "hidden": 16, "layers": 3, "heads": 1, "head_dim": 16, "experts": 4, "top_k": 2,
              "expert_width": 8, "context": 128},
    "train": {"tokens": 512, "batch": 4, "length": 32, "lr": 0.01, "warmup": 1, "compile": False, "probes": [256]},
    "clones": {"shares": [1, 0.5, 0.1, 0], "bilingual": 0.3, "shared": 0.0},
    "held": {"segments": 3, "shortest": 24, "longest": 40},
    "seeds": 1,
    "cells": {"base": {"weights": True}, "dense": {"model": {"experts": 0}}, "same": {"clones": {"shared": 1.0}}},
    "rules": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("clones")


@pytest.fixture(scope="module")
def grid(place):
    """A toy grid, made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MECHANISM_CACHE", str(place / "cache"))
        patch.setattr(training_runs, "RUNS", place / "runs")
        ids = np.random.default_rng(0).integers(1, 1024, 6000).astype(np.int32)
        column = Column(ids, np.arange(0, 6001, 20), np.arange(300), np.arange(300) // 10)
        patch.setattr(clones, "english_tokens", lambda tokenizer: ({("tech", "en"): column}, {}))
        path = place / "toy.yaml"
        path.write_text(yaml.safe_dump(TOY))
        found: Any = load_grid(str(path))
        found.make(Console(quiet=True), runs=1, steps=1)
        assert found.remaining() == (3, None)
        found.make(Console(quiet=True))
        yield found


def segments(grid: CloneGrid, cell: str) -> xr.Dataset:
    return xr.load_dataset(grid.run(cell, 0).record / SEGMENTS)


def test_the_committed_grid_is_what_was_planned():
    grid: Any = load_grid("clones")
    assert grid.size() == 22
    hashes = [run.hash for _, _, run in grid.planned()]
    assert len(set(hashes)) == len(hashes)
    sizes = {name: grid.run(name, 0).train.model for name in grid.cells}
    assert sizes["64 experts"].active_parameters() - sizes["base"].active_parameters() == 48 * 96 * 12  # routers alone
    assert set(grid.rules) == {"claims", "unit", "trained", "windows", "controls"}


def test_every_run_leaves_a_small_record_and_its_losses(grid):
    assert grid.summary() == "all 3 runs are there"
    for name in grid.cells:
        record = grid.run(name, 0).record
        assert sum(path.stat().st_size for path in record.iterdir()) < 300_000
        result = grid.run(name, 0).result()
        assert set(result["loss"]) == {"en", "clone 1", "clone 2", "clone 3"}
        assert all(5 < loss < 12 for loss in result["loss"].values())
    assert grid.run("base", 0).result()["read"]["clone 3"] == 0
    assert grid.run("base", 0).exported.exists()
    assert not grid.run("dense", 0).exported.exists()
    assert xr.load_dataset(grid.run("base", 0).record / PROBES)["tokens_seen"].values.tolist() == [0, 256, 512]


def test_english_and_a_clone_of_identical_ids_have_no_divergence(grid):
    same, base = segments(grid, "same"), segments(grid, "base")
    assert float(same["divergence"].max()) == 0
    assert float(base["divergence"].sel(lang="en").max()) == 0
    assert float(base["divergence"].sel(lang="clone 1").mean()) > 0.01
    assert (same["hits"] == 1).all()
    np.testing.assert_allclose(same["nll"].sel(lang="clone 1"), same["nll"].sel(lang="en"), atol=1e-4)
    np.testing.assert_allclose(same["shuffled"].sel(lang="clone 1"), same["shuffled"].sel(lang="en"), atol=3e-4)
    np.testing.assert_allclose(same["shuffled"].mean("segment"), same["within"], atol=3e-4)


def test_a_dense_twin_keeps_states_and_losses_alone(grid):
    found = segments(grid, "dense")
    assert set(found.data_vars) == {"nll", "hits", "distance"}
    assert found.sizes["state"] == TOY["model"]["layers"] + 1


def test_selections_count_every_token_of_every_slot(grid):
    found = segments(grid, "base")
    tokens = held_segments(grid.held, load_tokenizer(ENGLISH), "test")
    count = sum(len(ids) for ids in load_tokenizer(ENGLISH)(tokens.texts)["input_ids"])
    np.testing.assert_allclose(found["selections"].sum("expert"), 2 * count)
    np.testing.assert_allclose(found["probability"].sum("expert"), 1, rtol=1e-5)
    assert float(found["consistency"].min()) > 0


@pytest.mark.parametrize("split", ["dev", "test"])
def test_held_out_segments_are_of_their_split_and_others_of_other_documents(split: str):
    found = held_segments(HeldOut(20, 24, 96), load_tokenizer(ENGLISH), split)
    train = {text for name in ("religion", "tech", "maths", "fiction", "dictionary")
             for text in committed(name).texts("en", committed(name).split("train"))}  # fmt: skip
    assert len(found.texts) == 100
    assert len(train & set(found.texts)) <= 2  # a heading can stand twice
    assert sorted(found.other) == list(range(100))
    assert (found.document[found.other] != found.document).mean() > 0.95
    assert (found.other // 20 == np.arange(100) // 20).all()
