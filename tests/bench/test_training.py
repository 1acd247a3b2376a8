import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from mechanism import cli
from mechanism.bench import training as bench
from mechanism.nn.lm import LMConfig
from mechanism.nn.train_config import TrainConfig
from mechanism.study.base.runs import CONFIGS
from mechanism.study.embedded import compression as baselines

TINY = LMConfig(vocab=61, hidden=16, layers=2, heads=1, head_dim=16, experts=4, top_k=2, expert_width=8, context=64)
CONFIG = TrainConfig(model=TINY, batch=2, length=16)
EAGER = tuple(variant for variant in bench.VARIANTS if not variant["compile"])


def test_every_variant_is_measured_on_whole_steps():
    found = bench.bench(2, CONFIG, EAGER)
    assert set(found) == {"name", "ratio", "cases"}
    assert [{key: case[key] for key in EAGER[0]} for case in found["cases"]] == list(EAGER)
    assert all(0 < case["median"] <= case["best"] for case in found["cases"])
    assert found["cases"][0]["ratio"] == 1.0
    assert found["ratio"] == found["cases"][-1]["ratio"]


def test_ratios_are_paired_by_turn():
    rates = np.array([[1.0, 2.0], [10.0, 20.0], [4.0, 40.0]])
    cases = bench.compare(rates, ({"experts": "a"}, {"experts": "b"}))
    assert cases == [
        {"experts": "a", "median": 4, "best": 10, "ratio": 1.0},
        {"experts": "b", "median": 20, "best": 40, "ratio": 2.0},
    ]


def test_the_last_variant_is_what_the_main_run_uses():
    used = asdict(TrainConfig(**yaml.safe_load((CONFIGS / "main.yaml").read_text())["train"]))
    assert {key: used[key] for key in bench.VARIANTS[-1]} == bench.VARIANTS[-1]


@pytest.mark.parametrize("command", ["train", "compression"])
def test_json_has_name_ratio_and_cases(command, monkeypatch):
    table = pd.DataFrame({"corpus": ["tech", "udhr"], "lang": "en", "bytes": 9, "ppm": [2.0, 3.0], "xz": [4.0, 4.0]})
    monkeypatch.setattr(baselines, "made", lambda report: table)
    monkeypatch.setattr(bench, "bench", lambda steps: {"name": "train", "ratio": 2.0, "cases": [{"ratio": 2.0}]})
    shown = CliRunner().invoke(cli.app, ["bench", command, "--json"])
    found = json.loads(shown.output)
    assert found["name"] == command
    assert isinstance(found["cases"], list)
    assert found["ratio"] == {"train": 2.0, "compression": 0.625}[command]
