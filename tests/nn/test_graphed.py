"""The step that a CUDA graph can hold: equal to the one for a CPU, and never read by the host."""

import csv
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mechanism.nn.checkpoint import TrainingError
from mechanism.nn.dispatch import all_experts, padded_experts, static_shapes
from mechanism.nn.experts import Experts
from mechanism.nn.graphed import GraphedStep
from mechanism.nn.language_moe import LanguageMoEConfig, OffsetExperts
from mechanism.nn.moe import SparseMoEConfig
from mechanism.nn.multihead import MultiHeadMoEConfig
from mechanism.nn.optim import Muon, _together, orthogonalise
from mechanism.nn.training import Trainer
from mechanism.nn.variants import VariantConfig

from .test_training import CONFIG, TINY, batches

LAYERS = {
    "sparse": SparseMoEConfig(16, 4, 2, 8, z_weight=0.001),
    "corrected": SparseMoEConfig(16, 4, 2, 8, scoring="sigmoid", bias_rate=0.01),
    "heads": MultiHeadMoEConfig(16, 6, 2, 8, heads=2),
    "ternary": SparseMoEConfig(16, 4, 2, 8, precision="b1.58"),
    "language": LanguageMoEConfig(16, 4, 2, 8, languages=3, signal="added", alpha=0.5),
}


def told(step):
    return batches(step), np.arange(4) % 3


def variant(name):
    model = VariantConfig(LAYERS[name], vocab=61, layers=2, heads=1, head_dim=16, context=64)
    return replace(CONFIG, model=model), told if name == "language" else batches


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def losses(folder):
    return [row["loss"] for row in rows(folder)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_experts_are_the_padded_ones(dtype):
    experts = TINY.build().model.layers[0].mlp.experts
    x = torch.randn(300, 16, requires_grad=True)
    index = torch.rand(300, 4).topk(2).indices
    weights = torch.rand(300, 2, requires_grad=True)
    given = (x, weights, experts.gate_up_proj, experts.down_proj)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = [implementation(experts, x, index, weights) for implementation in (all_experts, padded_experts)]
    gradients = [torch.autograd.grad(out.square().sum(), given) for out in found]
    rtol, atol = (1e-5, 1e-9) if dtype == torch.float32 else (0.05, 1e-5)
    torch.testing.assert_close(*found, rtol=rtol, atol=atol)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=float(b.abs().max()) * rtol)


@pytest.mark.parametrize(
    "experts",
    [
        Experts(5, 8, 12),
        Experts(5, 8, 12, activation="relu"),
        Experts(5, 8, 12, precision="b1.58"),
        OffsetExperts(5, 8, 12, 0.3),
    ],
)
def test_experts_of_static_shape_are_the_sorted_ones(experts):
    x = torch.randn(50, 8, requires_grad=True)
    index, weights = torch.rand(50, 5).topk(3).indices, torch.rand(50, 3, requires_grad=True)
    sorted_ = experts(x, index, weights)
    with static_shapes():
        static = experts(x, index, weights)
    torch.testing.assert_close(static, sorted_)
    assert not torch.equal(static, sorted_ * 1.001)
    for a, b in zip(*(torch.autograd.grad(out.sum(), (x, weights)) for out in (static, sorted_)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_training_with_all_experts_is_training_with_padded_ones(tmp_path):
    for name in ("padded", "all"):
        Trainer(replace(CONFIG, experts=name), batches, tmp_path / name).run()
    np.testing.assert_allclose(losses(tmp_path / "all"), losses(tmp_path / "padded"), rtol=2e-5)


def test_matrices_of_one_shape_are_orthogonalised_together():
    directions = [torch.randn(6, 4), torch.randn(3, 6, 4), torch.randn(6, 4)]
    for a, b in zip(_together(directions), directions, strict=True):
        torch.testing.assert_close(a, orthogonalise(b))


def test_a_rate_on_the_device_moves_as_a_number_does():
    moved = []
    for rate in (0.1, torch.tensor(0.1)):
        p = torch.nn.Parameter(torch.arange(12.0).view(3, 4))
        optimiser = Muon([p], lr=0.0, weight_decay=0.1)
        optimiser.param_groups[0]["lr"] = rate
        p.grad = torch.sin(p.detach())
        optimiser.step()
        moved.append(p.detach())
    torch.testing.assert_close(*moved)


class HostReads(TorchDispatchMode):
    """Where values are read by the host."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in ("_local_scalar_dense", "nonzero", "masked_select", "unique")):
            where = [line.name for line in traceback.extract_stack() if "/torch/" not in line.filename]
            if "find_packed_sequence_indices" not in where:  # which transformers leaves out during capture
                self.found.append((str(func), where[-1]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["transformers", *LAYERS])
def test_the_host_reads_nothing_of_a_step(name, tmp_path):
    config, stream = (replace(CONFIG, experts="all"), batches) if name == "transformers" else variant(name)
    trainer = Trainer(config, stream, tmp_path)
    trainer.set_rate(torch.tensor(0.001))
    trainer.advance()
    ids, lang = trainer.batch(1)
    trainer.set_rate(torch.tensor(0.001))
    for listener in trainer.model.modules():
        if hasattr(listener, "lang"):
            listener.lang = lang
    with static_shapes(), HostReads() as reads:
        trainer.update(ids)
    assert not reads.found


@pytest.mark.gpu
class TestOnGPU:
    @pytest.mark.parametrize("name", ["transformers", *LAYERS])
    def test_training_equals_that_on_a_cpu(self, name, tmp_path):
        config, stream = (CONFIG, batches) if name == "transformers" else variant(name)
        seen = []
        for device in ("cpu", "cuda"):
            probe = lambda model, tokens: seen.append((tokens, model.training))  # noqa: E731
            Trainer(config, stream, tmp_path / device, probe, device=device).run()
        cpu, gpu = rows(tmp_path / "cpu"), rows(tmp_path / "cuda")
        assert seen == [(0, False), (256, False), (768, False)] * 2
        for key in ("step", "tokens", "lr"):
            assert [row[key] for row in gpu] == [row[key] for row in cpu]
        for key, close in (("loss", 1e-3), ("balance", 2e-2), ("grad_norm", 5e-2)):
            np.testing.assert_allclose([row[key] for row in gpu], [row[key] for row in cpu], rtol=close, err_msg=key)

    def test_in_bfloat16_it_learns_as_on_a_cpu(self, tmp_path):
        def repeated(step):
            return np.tile(np.arange(17) % 7, (4, 1))

        config = replace(CONFIG, tokens=40 * 64, dtype="bfloat16", compile=True)
        Trainer(config, repeated, tmp_path / "gpu", device="cuda").run()
        Trainer(replace(config, compile=False), repeated, tmp_path / "cpu").run()
        found, wanted = losses(tmp_path / "gpu"), losses(tmp_path / "cpu")
        assert found[-1] < 0.6 * found[0]
        np.testing.assert_allclose(found, wanted, rtol=0.1, atol=0.05)

    def test_resumed_is_uninterrupted(self, tmp_path):
        Trainer(CONFIG, batches, tmp_path / "whole", device="cuda").run()
        for stop in (5, 1, 20):
            last = Trainer(CONFIG, batches, tmp_path / "parts", device="cuda")
            last.run(stop_after=stop)
        np.testing.assert_allclose(losses(tmp_path / "parts"), losses(tmp_path / "whole"), rtol=1e-5)
        assert Trainer(CONFIG, batches, tmp_path / "parts").step == 12  # a checkpoint knows no device
        assert last.made_on() == {"device": torch.cuda.get_device_name()}

    def test_capture_leaves_the_state_alone(self, tmp_path):
        trainer = Trainer(CONFIG, batches, tmp_path, device="cuda")
        before = {name: value.clone() for name, value in trainer.state().items()}
        GraphedStep(trainer)
        for name, value in trainer.state().items():
            assert torch.equal(value, before.get(name, torch.zeros_like(value))), name

    def test_a_loss_that_is_not_finite_ends_the_run(self, tmp_path):
        trainer = Trainer(replace(CONFIG, lr=1e30), batches, tmp_path, device="cuda")
        with pytest.raises(TrainingError, match="lower lr"):
            trainer.run()
