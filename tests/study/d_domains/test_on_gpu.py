"""The causal sweep on a GPU: every expert's effect is that found on a CPU."""

import copy

import numpy as np
import pytest
import torch

from mechanism.study.d_domains.effects import BatchSweep, Settings
from mechanism.trace import expert_means
from mechanism.trace.families import tiny_model
from mechanism.trace.proof import Way, proven

pytestmark = pytest.mark.gpu

MODES = ("zero", "reroute", "mean")
IDS = torch.randint(3, 97, (4, 20), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(20) < torch.tensor((20, 20, 14, 9))[:, None]).long()


def swept(family, device, restart):
    model = copy.deepcopy(tiny_model(family)).to(device)
    ids, mask = IDS.to(device), MASK.to(device)
    means = expert_means(model, [{"input_ids": ids, "attention_mask": mask}])
    way = proven(model, ids, mask, MODES, means, 1) if restart else Way({}, False, {})
    return BatchSweep(model, ids, mask, Settings(MODES, means, way, fold=64)).run(), way


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_effects_are_those_found_on_a_cpu(family, restart):
    (cpu, _), (gpu, way) = (swept(family, device, restart) for device in ("cpu", "cuda"))
    assert bool(way.via) == restart
    assert (gpu.selections == cpu.selections).all()
    assert cpu.kl.max() > 0.1
    for name in ("kl", "own", "loss"):
        np.testing.assert_allclose(getattr(gpu, name), getattr(cpu, name), rtol=5e-3, atol=1e-3, err_msg=name)
