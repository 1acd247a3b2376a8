import io
import json
import shutil
from functools import cache

import pandas as pd
import pytest
import torch
import xarray as xr
import yaml
from rich.console import Console

from mechanism.corpus.mixture import Mixture, MixtureConfig
from mechanism.corpus.tokenizer import load_tokenizer
from mechanism.nn.checkpoint import TrainingError, checkpoint_files, read_checkpoint
from mechanism.study.base import runs as training_runs
from mechanism.study.base.probe_log import thin
from mechanism.study.base.runs import TOKENIZER, find_run, load_run
from mechanism.study.embedded import history
from mechanism.study.embedded import train as embedded
from mechanism.study.embedded.train import STAGE, branch, final_loss, run_training, seconds, stage, trainer

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
    monkeypatch.setattr(training_runs, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(embedded, "MODELS", tmp_path / "models")
    monkeypatch.setattr(embedded, "EvaluateConfig", lambda max_segments: None)
    monkeypatch.setattr(
        embedded, "evaluate", lambda model, tokenizer, config: __import__("pandas").DataFrame({"a": [1]})
    )
    monkeypatch.setattr("mechanism.study.embedded.probes.PROBE_SEGMENTS", {"tech": 4})
    monkeypatch.setattr(embedded, "Mixture", lambda config, tokenizer: mixture(config))
    return tmp_path


@cache
def mixture(config: MixtureConfig) -> Mixture:
    """A stream, which has no state; its text is cut into tokens once."""
    return Mixture(config, load_tokenizer(TOKENIZER))


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
    monkeypatch.setattr(training_runs, "data_hash", lambda: "other")
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
    assert (card["name"], card["run"]) == ("parts", run.hash)
    assert sum(json.loads((run.record / embedded.SHARES).read_text()).values()) == pytest.approx(1, abs=1e-3)
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
        find_run(str(place / "nothing.yaml"))
    with pytest.raises(FileNotFoundError, match="`mechanism train --config main` makes it"):
        history.load_history("main")


def test_committed_configurations_are_different_runs():
    runs = [load_run(path) for path in sorted(training_runs.CONFIGS.glob("*.yaml"))]
    assert {"main", "seed0", "seed1", "seed2", "control", "dense", "tiny"} <= {run.name for run in runs}
    assert len({run.hash for run in runs}) == len(runs)


def staged(place, steps=5, **train):
    """A run trained for some steps and staged, its workspace lost."""
    run = write(place, "staged", **train)
    run_training(run, steps, None, quiet())
    files = checkpoint_files(run.workspace)
    whole = read_checkpoint(files[max(files)])
    stage(run)
    shutil.rmtree(run.workspace)
    return run, whole


def metrics(folder):
    return pd.read_csv(folder / "metrics.csv")


def test_a_run_goes_on_from_its_stage(place):
    run, whole = staged(place)
    assert history.load_history("staged").result["finished"] is False
    train = trainer(run)
    assert (train.step, train.restarts) == (5, (5,))
    for name, p in train.model.named_parameters():
        assert torch.equal(whole.state[f"model.{name}"].to(torch.bfloat16).float(), p), name
    assert sorted(p.name for p in (run.workspace / "probes").iterdir()) == ["000000000000.nc", "000000000128.nc"]
    told = io.StringIO()
    run_training(run, None, None, Console(file=told, width=1000))
    assert "goes on from a stage: weights rounded to bf16, the optimiser's state was reset" in told.getvalue()
    found = history.load_history("staged")
    assert found.result["finished"]
    assert found.result["restarts"] == [5]
    assert list(found.stats["tokens_seen"]) == [0, 128, 512]
    assert not (run.record / STAGE).exists()


def test_rows_and_probes_of_before_a_stage_stay_in_the_record(place):
    run, _ = staged(place, 23, tokens=40 * 64)
    before, early = metrics(run.record), history.load_history("staged").stats
    assert list(before["step"]) == [10, 20, 23]
    run_training(run, 5, None, quiet())
    stage(run)
    assert list(metrics(run.record)["step"]) == [10, 20, 28]
    assert metrics(run.record)["loss"][:2].tolist() == before["loss"][:2].tolist()
    xr.testing.assert_identical(early, history.load_history("staged").stats.sel(tokens_seen=early["tokens_seen"]))
    shutil.rmtree(run.workspace)
    run_training(run, None, None, quiet())
    found = history.load_history("staged").result
    assert found["restarts"] == [23, 28]
    assert found["steps"] == 40
    assert list(metrics(run.record)["step"]) == [10, 20, 30, 40]


def test_loss_goes_on_falling_after_a_stage(place):
    run, _ = staged(place, 30, tokens=120 * 64, lr=0.01)
    run_training(run, None, None, quiet())
    loss = metrics(run.record).set_index("step")["loss"]
    assert loss.loc[100:].mean() < loss.loc[20:30].mean()


def test_staging_leaves_a_run_that_goes_on_alone(place):
    run = write(place, "busy", tokens=40 * 64)
    run_training(run, 5, None, quiet())
    before = {p: p.read_bytes() for p in run.workspace.rglob("*") if p.is_file()}
    rows = run.workspace / "metrics.csv"
    rows.write_text(rows.read_text() + "6,384,9.9,1,1,1,1\n")  # logged after the newest checkpoint
    stage(run)
    assert metrics(run.record)["step"].max() == 5
    assert rows.read_text().endswith("6,384,9.9,1,1,1,1\n")
    assert {p for p in run.workspace.rglob("*") if p.is_file()} == set(before)


def test_a_checkpoint_of_the_workspace_goes_before_a_stage(place):
    run = write(place, "both", tokens=40 * 64)
    run_training(run, 3, None, quiet())
    stage(run)
    run_training(run, 3, None, quiet())
    assert (trainer(run).step, trainer(run).restarts) == (6, ())


def test_a_branch_begins_at_the_stage_of_its_parent(place):
    parent, _ = staged(place, 14, tokens=40 * 64)
    short = write(place, "short", tokens=20 * 64)
    assert branch(short, parent) == 14
    run_training(short, None, None, quiet())
    assert history.load_history("short").result["restarts"] == [14]


def test_a_corrupted_stage_is_one_sentence(place):
    run, _ = staged(place)
    path = run.record / STAGE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    for damaged in (bytes(content), bytes(content[:50])):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"stage.safetensors is corrupted .*restore it from version control"):
            run_training(run, None, None, quiet())


def test_nothing_to_stage(place):
    with pytest.raises(TrainingError, match=r"new has no checkpoint in .*: train it first"):
        stage(write(place, "new"))


def test_thinned_metrics_count_the_steps_between_rows():
    whole = pd.DataFrame({"step": range(1, 31), "seconds": 2.0, "loss": 1.0})
    assert seconds(whole) == seconds(thin(whole)) == 60
    assert final_loss(whole.assign(loss=whole["step"]), 4) == 28.5


def test_a_run_begins_with_the_last_weights_of_its_base(place):
    base = write(place, "base")
    path = place / "skill.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "base": "base", "mixture": {"languages": ["om", "km"]}}))
    run = load_run(path)
    assert run.base == base.hash
    assert run.hash != load_run(write_again(path, base=None)).hash
    with pytest.raises(TrainingError, match=r"skill begins with the last weights of its base .* train the base first"):
        trainer(run)
    run_training(base, 3, None, quiet())
    with pytest.raises(TrainingError, match="last weights of its base base, which are not in"):
        trainer(run)
    run_training(base, None, None, quiet())
    begun = trainer(run)
    assert (begun.step, begun.restarts) == (0, ())
    last = read_checkpoint(checkpoint_files(base.workspace)[8]).state
    for name, own in begun.model.named_parameters():
        torch.testing.assert_close(own, last[f"model.{name}"], rtol=0, atol=0)
    run_training(run, None, None, quiet())
    config = json.loads((run.record / "config.json").read_text())
    assert config["base"] == base.hash
    assert "base" not in json.loads((base.record / "config.json").read_text())


def write_again(path, **changed):
    """Another file beside it, with some keys changed or, as None, left out."""
    payload = {**yaml.safe_load(path.read_text()), **changed}
    other = path.with_name("other.yaml")
    other.write_text(yaml.safe_dump({key: value for key, value in payload.items() if value is not None}))
    return other


def test_a_base_that_is_not_there_is_one_sentence(place):
    path = place / "skill.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "base": "nothing"}))
    with pytest.raises(FileNotFoundError, match="no training configuration at"):
        load_run(path)
