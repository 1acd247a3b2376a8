import io
import json

import pytest
import yaml
from rich.console import Console

from mechanism.nn.training import TrainingError
from mechanism.study import embedded, history
from mechanism.study.embedded import branch, load_run, run_training

SMALL: dict[str, dict] = {
    "train": {
        "model": {"hidden": 16, "layers": 2, "heads": 1, "head_dim": 16, "experts": 4, "top_k": 2, "expert_width": 8},
        "tokens": 8 * 64,
        "batch": 2,
        "length": 32,
        "warmup": 2,
        "compile": False,
        "probes": [128],
    },
    "mixture": {"languages": ["om", "km", "ko"]},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHANISM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(embedded, "MODELS", tmp_path / "models")
    monkeypatch.setattr(embedded, "EvaluateConfig", lambda max_segments: None)
    monkeypatch.setattr(
        embedded, "evaluate", lambda model, tokenizer, config: __import__("pandas").DataFrame({"a": [1]})
    )
    monkeypatch.setattr("mechanism.study.emergence.PROBE_SEGMENTS", {"tech": 4})
    return tmp_path


def write(folder, name, **train):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "train": {**SMALL["train"], **train}}))
    return load_run(path)


def quiet():
    return Console(file=io.StringIO())


def test_the_hash_follows_configuration_and_data_but_not_the_name(place, monkeypatch):
    run = write(place, "a")
    assert run.hash == write(place, "b").hash
    assert run.hash != write(place, "a", lr=0.5).hash
    monkeypatch.setattr(embedded, "data_hash", lambda: "other")
    assert run.hash != write(place, "a").hash


def test_a_run_in_two_parts_leaves_the_record_of_one(place):
    run = write(place, "parts")
    run_training(run, 3, None, quiet())
    assert json.loads((run.record / "result.json").read_text())["finished"] is False
    run_training(run, None, "small", quiet())
    found = history.load_history("parts")
    assert found.result["finished"]
    assert found.result["steps"] == 8
    assert list(found.stats["tokens_seen"]) == [0, 128, 512]
    assert (run.record / embedded.EVALUATION).exists()
    card = json.loads((place / "models" / "small" / "card.json").read_text())
    assert card["run"] == run.hash
    shares = history.expert_shares(found.stats, "tech", "om")
    assert shares.sum("expert").values == pytest.approx(1)
    assert ((history.effective_experts(shares) >= 1) & (history.effective_experts(shares) <= 4)).all()


def test_a_branch_equals_the_run_from_its_beginning(place):
    parent, short = write(place, "long", tokens=40 * 64), write(place, "short", tokens=20 * 64)
    run_training(parent, 14, None, quiet())
    assert branch(short, parent) == 14
    run_training(short, None, None, quiet())
    branched = (short.workspace / "metrics.csv").read_text().splitlines()
    for path in short.workspace.glob("step-*"):
        path.unlink()
    (short.workspace / "metrics.csv").unlink()
    run_training(short, None, None, quiet())
    again = (short.workspace / "metrics.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[0] for line in branched] == [line.rsplit(",", 1)[0] for line in again]


def test_a_branch_needs_the_same_run_and_an_early_checkpoint(place):
    parent, short = write(place, "long", tokens=40 * 64), write(place, "short", tokens=10 * 64)
    with pytest.raises(TrainingError, match="differ in more than their tokens"):
        branch(write(place, "other", seed=3), parent)
    run_training(parent, 14, None, quiet())
    with pytest.raises(TrainingError, match=r"no checkpoint up to step 8; it has \[14\]"):
        branch(short, parent)


def test_missing_configuration_and_record(place):
    with pytest.raises(FileNotFoundError, match=r"no training configuration at .*committed ones in .*main"):
        load_run(place / "nothing.yaml")
    with pytest.raises(FileNotFoundError, match="`mechanism train --config main` makes it"):
        history.load_history("main")


def test_committed_configurations_are_different_runs():
    runs = [load_run(path) for path in sorted(embedded.CONFIGS.glob("*.yaml"))]
    assert {"main", "seed0", "seed1", "seed2", "control", "dense", "tiny"} <= {run.name for run in runs}
    assert len({run.hash for run in runs}) == len(runs)
