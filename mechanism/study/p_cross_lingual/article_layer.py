"""The sample layer of "Transformer Q102" (section 6), written anew from its description, and what becomes of it.

The article describes an expert per language (two linear maps, ReLU between), a gate that embeds the language id, puts
it beside the token, scores with a linear map as wide as the token and applies softmax, and a layer that runs every
expert, adds their outputs up, and multiplies the sum by the probabilities. It calls this sparse.
"""

from contextlib import suppress
from dataclasses import dataclass

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...nn.experts import Experts
from ...nn.moe import SparseMoEConfig

INNER = 4096
"""Inner width of the article's experts."""
D, LANGUAGES, BATCH, LENGTH, TOP_K = 64, 8, 3, 5, 2
"""Of a trial, the input's axes unequal so that none passes for another, and of the corrected layer."""


class DescribedGate(nn.Module):
    """Token and language embedding side by side, scored by a map of the token's width, as described."""

    widths = 1
    """Width of what is scored over that of a token."""

    def __init__(self, d: int, experts: int, languages: int) -> None:
        super().__init__()
        self.language, self.scorer = nn.Embedding(languages, d), nn.Linear(self.widths * d, experts)

    def told(self, x: Tensor, lang: Tensor) -> Tensor:
        """Each token with its language."""
        return torch.cat([x, self.language(lang)], dim=-1)

    def forward(self, x: Tensor, lang: Tensor) -> Tensor:
        return F.softmax(self.scorer(self.told(x, lang)), dim=-1)


class MendedGate(DescribedGate):
    """The same with a scorer as wide as its input, and the language given to every token of its sequence."""

    widths = 2

    def told(self, x: Tensor, lang: Tensor) -> Tensor:
        return torch.cat([x, self.language(lang)[:, None].expand_as(x)], dim=-1)


class AddedGate(DescribedGate):
    """The gate of section 3.3 as described: the language's embedding added to the token, no axis for positions."""

    def told(self, x: Tensor, lang: Tensor) -> Tensor:
        return x + self.language(lang)


class DescribedLayer(nn.Module):
    """Every expert runs; the sum of their outputs is multiplied by the probabilities, as described."""

    def __init__(self, d: int, languages: int, gate: type[DescribedGate] = DescribedGate) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(d, INNER), nn.ReLU(), nn.Linear(INNER, d)) for _ in range(languages)
        )
        self.gate = gate(d, languages, languages)

    def forward(self, x: Tensor, lang: Tensor) -> Tensor:
        probabilities = self.gate(x, lang)
        outputs = [expert(x) for expert in self.experts]
        return torch.stack(outputs).sum(0) * probabilities.unsqueeze(-1)


class CorrectedLayer(nn.Module):
    """Only the two most probable experts of a token run, and each output has its own weight."""

    def __init__(self, d: int, languages: int) -> None:
        super().__init__()
        self.gate, self.experts = MendedGate(d, languages, languages), Experts(languages, d, INNER, "relu")

    def forward(self, x: Tensor, lang: Tensor) -> Tensor:
        best = self.gate(x, lang).flatten(0, 1).topk(TOP_K, dim=-1)
        weights = best.values / best.values.sum(-1, keepdim=True)
        return self.experts(x.flatten(0, 1), best.indices, weights).view_as(x)


@dataclass(frozen=True)
class LayerTrial:
    """What happens when the layers run on drawn tokens."""

    seed: int = 0

    def input(self) -> tuple[Tensor, Tensor]:
        """Tokens `(batch, pos, d)` and a language id per sequence `(batch,)`."""
        torch.manual_seed(self.seed)
        return torch.randn(BATCH, LENGTH, D), torch.arange(BATCH)

    def __call__(self) -> pd.DataFrame:
        """One row per attempt: `layer`, `outcome` (the output's shape, or the error) and FLOPs a token where it ran."""
        attempts = {
            "as described": DescribedLayer(D, LANGUAGES),
            "its gate mended": DescribedLayer(D, LANGUAGES, MendedGate),
            "corrected": CorrectedLayer(D, LANGUAGES),
        }
        return pd.DataFrame([{"layer": name, **self._run(layer)} for name, layer in attempts.items()])

    def _run(self, layer: nn.Module) -> dict[str, object]:
        x, lang = self.input()
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                out = layer(x, lang)
        except RuntimeError as error:
            return {"outcome": f"RuntimeError: {str(error).splitlines()[0]}", "FLOPs a token": None}
        shape = "x".join(map(str, out.shape))
        return {"outcome": f"runs, {shape}", "FLOPs a token": counter.get_total_flops() // (BATCH * LENGTH)}

    def expert_calls(self) -> tuple[int, int]:
        """Experts that one token of the layer with its gate mended runs, and how many it would select."""
        layer, calls = DescribedLayer(D, LANGUAGES, MendedGate), []
        for expert in layer.experts:
            expert.register_forward_hook(lambda module, args, out: calls.append(1))
        x, lang = self.input()
        with suppress(RuntimeError):
            layer(x[:1, :1], lang[:1])
        return len(calls), TOP_K

    def properties(self) -> dict[str, bool]:
        """Whether the layer as described runs on a batch of sequences, and whether a token pays for selected experts
        only."""
        first = self().set_index("layer").loc["as described", "outcome"]
        run, selected = self.expert_calls()
        return {"runs": str(first).startswith("runs"), "sparse": run <= selected}

    def cost(self) -> pd.DataFrame:
        """FLOPs a token of experts and gate by number of languages: all experts as described, and the two selected."""
        rows = []
        for languages in (2, 4, 8, 16, 32, 64, 100):
            config = SparseMoEConfig(D, languages, TOP_K, INNER, "relu")
            gate, expert = 2 * 2 * D * languages, config.count().flops - config.parts()["router"].flops
            rows.append(
                {"languages": languages, "as described": gate + languages * expert // TOP_K, "corrected": gate + expert}
            )
        return pd.DataFrame(rows)


def silent_broadcast(seed: int = 0) -> tuple[bool, float]:
    """Section 3.3's gate on as many sequences as positions: it runs, and gives position p the language of sequence p.

    Returns:
        Whether it runs, and the largest difference from probabilities with each sequence's own language.
    """
    torch.manual_seed(seed)
    gate = AddedGate(8, 3, 4)
    x, lang = torch.randn(4, 4, 8), torch.arange(4)
    with torch.no_grad():
        wrong = gate(x, lang)
        right = F.softmax(gate.scorer(x + gate.language(lang)[:, None]), dim=-1)
    return wrong.shape == right.shape, float((wrong - right).abs().max())
