import csv
import errno
import itertools
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from mechanism.nn import checkpoint, training
from mechanism.nn.checkpoint import TrainingError, read_checkpoint
from mechanism.nn.lm import LMConfig
from mechanism.nn.router import balance_loss
from mechanism.nn.train_config import TrainConfig, read_config
from mechanism.nn.training import Trainer

TINY = LMConfig(vocab=61, hidden=16, layers=2, heads=1, head_dim=16, experts=4, top_k=2, expert_width=8, context=64)
CONFIG = TrainConfig(model=TINY, tokens=12 * 64, batch=4, length=16, warmup=2, compile=False, probes=(256,))


def batches(step):
    return np.random.default_rng([5, step]).integers(61, size=(4, 17))


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    whole = Trainer(CONFIG, batches, tmp_path / "whole").run()
    for stop in (5, 1, 20):
        resumed = Trainer(CONFIG, batches, tmp_path / "parts").run(stop_after=stop)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    for (name, a), b in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_kill_loses_only_what_follows_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "CHECKPOINT_SECONDS", 0.0)
    trainer = Trainer(CONFIG, batches, tmp_path / "killed")
    trainer.run(stop_after=4)
    for row in range(2):  # rows that a killed process had logged after its last checkpoint
        trainer._log({"step": 5 + row, "tokens": 0, "loss": 9.9, "balance": 0, "grad_norm": 0, "lr": 0, "seconds": 0})
    Trainer(CONFIG, batches, tmp_path / "killed").run()
    Trainer(CONFIG, batches, tmp_path / "whole").run()
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_only_the_newest_checkpoints_are_kept_and_no_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "CHECKPOINT_SECONDS", 0.0)
    Trainer(CONFIG, batches, tmp_path).run()
    assert len(list(tmp_path.glob("step-*.safetensors"))) == Trainer.KEEP
    assert not list(tmp_path.glob("*.tmp"))


def test_probes_at_start_between_and_end(tmp_path):
    seen = []
    Trainer(CONFIG, batches, tmp_path, probe=lambda model, tokens: seen.append((tokens, model.training))).run()
    assert seen == [(0, False), (256, False), (768, False)]


def test_corrupted_checkpoint_is_named(tmp_path):
    Trainer(CONFIG, batches, tmp_path).run(stop_after=2)
    path = next(tmp_path.glob("step-*.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrainingError, match=rf"{path.name} is corrupted.*delete it"):
        Trainer(CONFIG, batches, tmp_path)


def test_full_disk_is_one_sentence_and_leaves_no_half_written_file(tmp_path, monkeypatch):
    trainer = Trainer(CONFIG, batches, tmp_path)
    trainer.run(stop_after=3)

    def full(state, path, metadata=None):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TrainingError, match="No space left on device; free some space"):
        trainer.run(stop_after=2)
    assert [p.name for p in tmp_path.glob("step-*")] == ["step-0000003.safetensors"]
    monkeypatch.undo()
    assert Trainer(CONFIG, batches, tmp_path).step == 3


SCRIPT = """
import sys, time
from pathlib import Path
from tests.nn.test_training import CONFIG, batches
from mechanism.nn.training import Trainer
def slow(row):
    print(row["step"], flush=True)
    time.sleep(0.2)
Trainer(CONFIG, batches, Path(sys.argv[1])).run(slow)
"""


def test_interrupt_ends_after_a_whole_step_with_a_checkpoint(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if int(line) == 2:
                process.send_signal(signal.SIGINT)
    assert process.returncode != 0
    steps = [int(p.stem.removeprefix("step-")) for p in tmp_path.glob("step-*.safetensors")]
    assert steps == [losses(tmp_path)[-1][0]]
    assert not list(tmp_path.glob("*.tmp"))


def test_loss_falls_on_a_learnable_stream(tmp_path):
    def repeated(step):
        return np.tile(np.arange(17) % 7, (4, 1))

    config = TrainConfig(model=TINY, tokens=40 * 64, batch=4, length=16, warmup=2, compile=False, probes=())
    Trainer(config, repeated, tmp_path).run()
    found = [loss for _, loss in losses(tmp_path)]
    assert found[-1] < 0.6 * found[0]


def test_the_loss_in_chunks_is_that_of_the_whole(tmp_path):
    trainer = Trainer(CONFIG, batches, tmp_path)
    hidden = torch.randn(600, TINY.hidden, requires_grad=True)
    weight, targets = trainer.model.lm_head.weight, torch.randint(TINY.vocab, (len(hidden),))
    found = trainer._next_token_loss(hidden, targets)
    whole = F.cross_entropy(hidden @ weight.T, targets)
    assert found.item() == pytest.approx(whole.item(), abs=1e-6)
    for a, b in zip(*(torch.autograd.grad(loss, (hidden, weight)) for loss in (found, whole)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-4)


def test_balance_loss_is_one_when_uniform_and_e_when_collapsed():
    uniform = torch.zeros(8, 4)
    index = torch.arange(8).reshape(8, 1) % 4
    assert torch.isclose(balance_loss(uniform, index), torch.tensor(1.0))
    collapsed = torch.tensor([[50.0, 0, 0, 0]]).repeat(8, 1)
    assert torch.isclose(balance_loss(collapsed, torch.zeros(8, 1, dtype=torch.long)), torch.tensor(4.0))


def test_learning_rate_warms_up_stays_and_falls():
    config = TrainConfig(tokens=100 * 8192, warmup=10, decay=0.2, lr=1.0)
    rates = [config.rate(step) for step in range(config.steps)]
    assert rates[0] == 0.1
    assert rates[10:80] == [1.0] * 70
    assert all(a > b for a, b in itertools.pairwise(rates[80:]))
    assert rates[-1] == pytest.approx(0.05)


def test_checkpoint_holds_model_and_both_optimisers(tmp_path):
    trainer = Trainer(CONFIG, batches, tmp_path)
    trainer.run(stop_after=2)
    names = {key.split(".")[0] for key in load_file(trainer.save())}
    assert names == {"model", "optimiser"}


def test_unknown_configuration_key_is_refused():
    assert read_config({"model": {"layers": 3}, "lr": 0.5}).model.layers == 3
    with pytest.raises(TypeError, match="learning_rate"):
        read_config({"learning_rate": 1})


def test_at_most_five_minutes_are_lost():
    assert Trainer.CHECKPOINT_SECONDS <= 300


def test_weights_alone_restart_the_optimiser_and_its_warm_up(tmp_path):
    first = Trainer(CONFIG, batches, tmp_path / "first")
    first.run(stop_after=5)
    (tmp_path / "second").mkdir()
    stage = read_checkpoint(first.save()).weights()
    stage.write(tmp_path / "second" / "step-0000005.safetensors")
    second = Trainer(CONFIG, batches, tmp_path / "second")
    assert (second.step, second.restarts) == (5, (5,))
    assert all(not optimiser.state for optimiser in second.optimisers)
    for (name, a), b in zip(first.model.named_parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a.to(torch.bfloat16).float(), b), name
    second.run(stop_after=3)
    with (tmp_path / "second" / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == [CONFIG.lr / 2, CONFIG.lr, CONFIG.lr]
    third = Trainer(CONFIG, batches, tmp_path / "second")
    assert (third.step, third.restarts) == (8, (5,))
    assert all(optimiser.state for optimiser in third.optimisers)


def test_a_changed_byte_of_a_checkpoint_is_found(tmp_path):
    trainer = Trainer(CONFIG, batches, tmp_path)
    trainer.run(stop_after=1)
    path = trainer.save()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"is corrupted \(its content does not match its sha256\); delete it"):
        read_checkpoint(path)


@pytest.mark.parametrize("chunked", [True, False], ids=["loss in chunks", "loss as a whole"])
def test_the_compiler_gets_the_step_but_not_a_loss_in_chunks(chunked, tmp_path, monkeypatch):
    """Compiled code is as good as what was handed over: the compiler itself does not know the checks of types here."""
    given: list[Any] = []
    called: list[Any] = []

    def handed(own):
        def call(ids):
            called.append(own)
            return own(ids)

        given.append(own)
        return call

    monkeypatch.setattr(torch, "compile", handed)
    monkeypatch.setattr(training, "CHUNKED", training.CHUNKED if chunked else None)
    plain = Trainer(CONFIG, batches, tmp_path / "plain")
    compiled = Trainer(replace(CONFIG, compile=True), batches, tmp_path / "compiled")
    assert [own.__name__ for own in given] == ["_last_states" if chunked else "losses"]
    for _ in range(3):
        here, there = plain.advance(), compiled.advance()
        assert [here[name] for name in ("loss", "balance", "grad_norm")] == [
            pytest.approx(there[name], rel=1e-5) for name in ("loss", "balance", "grad_norm")
        ]
    assert called == given * 3
