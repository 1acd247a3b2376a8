from dataclasses import replace

import numpy as np
import pytest

from mechanism.nn.moe import SparseMoEConfig
from mechanism.study.d_domains.constant_compute import ComputeConfig, compute_growth, recorded, running, time_layers

LAYER = SparseMoEConfig(32, experts=8, top_k=2, width=16)
TINY = ComputeConfig(LAYER, experts=(4, 8, 16), dense=(4, 8), low=4, high=16, tokens=64, repeats=3)


def test_counts_are_those_of_the_formula_and_only_the_router_grows():
    found = compute_growth(time_layers(TINY), TINY)
    sparse = found.table[found.table["kind"] == "sparse"].set_index("experts")
    expert = 3 * 32 * 16
    assert sparse["parameters"].to_dict() == {n: n * expert + 32 * n for n in (4, 8, 16)}
    assert sparse["flops"].to_dict() == {n: 2 * 2 * expert + 2 * 32 * n for n in (4, 8, 16)}
    assert found.parameters == pytest.approx(4)
    assert found.flops == (4 * expert + 2 * 32 * 16) / (4 * expert + 2 * 32 * 4)
    dense = found.table[found.table["kind"] == "dense"].set_index("experts")
    assert dense.loc[8, "flops"] == 2 * dense.loc[4, "flops"] == 2 * 8 * expert


def test_time_is_measured_and_its_interval_holds_the_median():
    found = compute_growth(time_layers(TINY), TINY)
    assert (found.table["seconds"] > 0).all()
    assert found.time.low <= found.time.estimate <= found.time.high
    assert found.time.n == 3
    assert np.isfinite(found.time.estimate)


def test_both_ends_have_to_be_timed():
    with pytest.raises(ValueError, match="4 and 32 experts"):
        time_layers(replace(TINY, high=32))
    with pytest.raises(ValueError, match="'sparse 32' was not timed"):
        compute_growth(time_layers(TINY), replace(TINY, experts=(4, 8, 16, 32), high=32))


def test_other_processes_are_counted_where_the_system_tells(tmp_path):
    assert running(tmp_path) is None
    for pid, state in enumerate("RRSR"):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a (b) c) {state} 1 2")
    assert running(tmp_path) == 2


def test_the_record_is_of_the_layers_that_the_claim_is_about(tmp_path):
    assert recorded(tmp_path / "none.csv") is None
    times = recorded()
    assert times is not None
    assert {"threads", "torch", "machine", "running"} <= set(times)
    found = compute_growth(times)
    assert found.time.n == ComputeConfig().repeats
    assert (found.table["seconds"] > 0).all()
