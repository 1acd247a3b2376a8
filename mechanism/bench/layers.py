"""What one feed-forward layer costs: ours against transformers' Qwen3-MoE block and a dense layer of equal FLOPs."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from ..nn import parity
from ..nn.moe import SparseMoE, SparseMoEConfig
from ..study.base.turns import EMBEDDED, compared, fixed_threads, turns

OURS, THEIRS = "SparseMoE", "transformers"
IMPLEMENTATIONS = ("eager", "grouped_mm")
DTYPES, PASSES = ("float32", "bfloat16"), ("forward", "forward and backward")


def bench_layers(repeats: int = 20, tokens: int = 4096, baseline: SparseMoEConfig = EMBEDDED) -> dict[str, Any]:
    """Seconds of each layer with two threads on the same random tokens, new ones in each turn.

    Multi-head layers and the dense one have the FLOPs of the sparse one (`nn.parity`), the former its parameters too.

    Returns:
        `name`; `cases`, for each layer, dtype and pass the median `seconds` and `ratio`, the median over turns of its
        time to that of transformers' faster implementation of the same turn; `ratio`, the largest of `SparseMoE`.

    Raises:
        ParityError: no multi-head layer of two or three heads fits the baseline.
        RuntimeError: our layer and transformers' give different outputs.
    """
    torch.manual_seed(0)
    layers = _layers(baseline)
    _agree(layers, baseline.hidden)
    cases = []
    with fixed_threads(2):
        for dtype in DTYPES:
            own = {name: layer.to(getattr(torch, dtype)) for name, layer in layers.items()}
            for backward in (False, True):
                facts = {"dtype": dtype, "pass": PASSES[backward]}
                cases += [facts | row for row in compare(turns(own, (1, tokens, baseline.hidden), backward, repeats))]
    ratio = max(case["ratio"] for case in cases if case["layer"] == OURS)
    return {"name": "layers", "ratio": ratio, "cases": cases}


def compare(seconds: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """A row per layer from its seconds of each turn, against the faster of transformers' own."""
    best = min((name for name in seconds if name.startswith(THEIRS)), key=lambda n: statistics.median(seconds[n]))
    return compared(seconds, best, "layer")


def _layers(baseline: SparseMoEConfig) -> dict[str, nn.Module]:
    sparse = SparseMoE(baseline)
    found: dict[str, nn.Module] = {f"{THEIRS} {name}": _block(sparse, name) for name in IMPLEMENTATIONS}
    found[OURS] = sparse
    for heads in (2, 3):
        found[f"MultiHeadMoE, {heads} heads"] = parity.multi_head(baseline, heads, baseline.top_k).build()
    return found | {"dense": parity.dense(baseline).build()}


def _block(sparse: SparseMoE, implementation: str) -> nn.Module:
    """transformers' block with the weights of ours."""
    own = sparse.config
    config = Qwen3MoeConfig(
        hidden_size=own.hidden, num_experts=own.experts, num_experts_per_tok=own.top_k,
        moe_intermediate_size=own.width, norm_topk_prob=own.normalise,
    )  # fmt: skip
    config._experts_implementation = implementation
    block = Qwen3MoeSparseMoeBlock(config)
    with torch.no_grad():
        block.gate.weight.copy_(sparse.router.weight)
        block.experts.gate_up_proj.copy_(sparse.experts.up_proj)
        block.experts.down_proj.copy_(sparse.experts.down_proj)
    return block


def _agree(layers: dict[str, nn.Module], hidden: int) -> None:
    x = torch.randn(1, 64, hidden)
    with torch.no_grad():
        wanted = layers[OURS](x)
        for name, layer in layers.items():
            if name.startswith(THEIRS) and not torch.allclose(layer(x), wanted, rtol=1e-3, atol=1e-6):
                raise RuntimeError(f"{name} and {OURS} give different outputs with the same weights")
