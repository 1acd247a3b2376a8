import json

import pytest
import torch
from typer.testing import CliRunner

from mechanism import cli
from mechanism.bench import layers as bench_layers
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.parity import ParityError

TINY = SparseMoEConfig(24, experts=8, top_k=2, width=24)


def test_every_layer_dtype_and_pass_is_measured():
    threads = torch.get_num_threads()
    found = bench_layers.bench_layers(1, 64, TINY)
    assert torch.get_num_threads() == threads
    assert set(found) == {"name", "ratio", "cases"}
    names = {case["layer"] for case in found["cases"]}
    assert len(names) == 6
    assert len(found["cases"]) == 6 * 2 * 2
    own = [case["ratio"] for case in found["cases"] if case["layer"] == bench_layers.OURS]
    assert found["ratio"] == max(own)


def test_ratios_are_to_the_faster_of_transformers_own_and_paired_by_turn():
    rows = bench_layers.compare({"transformers a": [2.0, 4.0], "transformers b": [3.0, 9.0], "SparseMoE": [1.0, 8.0]})
    assert [row["ratio"] for row in rows] == [1.0, 1.875, 1.25]
    assert rows[2]["seconds"] == 4.5


def test_a_baseline_without_partners_is_refused():
    with pytest.raises(ParityError, match="nearest"):
        bench_layers.bench_layers(1, 8, SparseMoEConfig(24, experts=8, top_k=2, width=25))


def test_json_has_name_ratio_and_cases(monkeypatch):
    found = {"name": "layers", "ratio": 0.9, "cases": [{"layer": "SparseMoE", "ratio": 0.9}]}
    monkeypatch.setattr(bench_layers, "bench_layers", lambda repeats, tokens: found)
    shown = CliRunner().invoke(cli.app, ["bench", "layers", "--json"])
    assert json.loads(shown.output) == found
