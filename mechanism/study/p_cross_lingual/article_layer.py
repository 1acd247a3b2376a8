"""The sample layer of "Transformer Q102" (section 6), written anew from its description, and what becomes of it.

The article describes an expert per language (two linear maps, ReLU between), a gate that embeds the language id, puts
it beside the token, scores with a linear map as wide as the token and applies softmax, and a layer that runs every
expert, adds their outputs up, and multiplies the sum by the probabilities. It calls this sparse.
"""

from collections.abc import Callable
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


class DescribedGate(nn.Module):
    """Token and language embedding side by side, scored by a map of the token's width, as described."""

    def __init__(self, d: int, experts: int, languages: int) -> None:
        super().__init__()
        self.language, self.scorer = nn.Embedding(languages, d), nn.Linear(self.scored(d), experts)

    def scored(self, d: int) -> int:
        """Width of what is scored."""
        return d

    def told(self, x: Tensor, lang: Tensor) -> Tensor:
        """Each token with its language."""
        return torch.cat([x, self.language(lang)], dim=-1)

    def forward(self, x: Tensor, lang: Tensor) -> Tensor:
        return F.softmax(self.scorer(self.told(x, lang)), dim=-1)


class MendedGate(DescribedGate):
    """The same with a scorer as wide as its input, and the language given to every token of its sequence."""

    def scored(self, d: int) -> int:
        return 2 * d

    def told(self, x: Tensor, lang: Tensor) -> Tensor:
        return torch.cat([x, self.language(lang)[:, None].expand_as(x)], dim=-1)


class AddedGate(DescribedGate):
    """The gate of section 3.3 as described: the language's embedding added to the token, no axis for positions."""

    def told(self, x: Tensor, lang: Tensor) -> Tensor:
        return x + self.language(lang)


class DescribedLayer(nn.Module):
    """Every expert runs; the sum of their outputs is multiplied by the probabilities, as described.

    Args:
        gate: `DescribedGate`, or `MendedGate` to get past it.
    """

    def __init__(self, d: int, languages: int, gate: Callable[..., nn.Module] = DescribedGate, inner: int = INNER):
        super().__init__()
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(d, inner), nn.ReLU(), nn.Linear(inner, d)) for _ in range(languages)
        )
        self.gate = gate(d, languages, languages)

    def forward(self, x: Tensor, lang: Tensor) -> Tensor:
        probabilities = self.gate(x, lang)
        outputs = [expert(x) for expert in self.experts]
        return torch.stack(outputs).sum(0) * probabilities.unsqueeze(-1)


class CorrectedLayer(nn.Module):
    """Only the `top_k` most probable experts of a token run, and each output has its own weight."""

    def __init__(self, d: int, languages: int, top_k: int = 2, inner: int = INNER) -> None:
        super().__init__()
        self.gate, self.top_k = MendedGate(d, languages, languages), top_k
        self.experts = Experts(languages, d, inner, "relu")

    def forward(self, x: Tensor, lang: Tensor) -> Tensor:
        best = self.gate(x, lang).flatten(0, 1).topk(self.top_k, dim=-1)
        weights = best.values / best.values.sum(-1, keepdim=True)
        return self.experts(x.flatten(0, 1), best.indices, weights).view_as(x)


@dataclass(frozen=True)
class LayerTrial:
    """What happens when the layers run.

    Attributes:
        d, inner: widths; languages; batch, length: of the input, unequal so that no axis passes for another; seed.
    """

    d: int = 64
    inner: int = INNER
    languages: int = 8
    batch: int = 3
    length: int = 5
    seed: int = 0

    def input(self) -> tuple[Tensor, Tensor]:
        """Tokens `(batch, pos, d)` and a language id per sequence `(batch,)`."""
        torch.manual_seed(self.seed)
        return torch.randn(self.batch, self.length, self.d), torch.arange(self.batch) % self.languages

    def __call__(self) -> pd.DataFrame:
        """One row per attempt: `layer`, `outcome` (the output's shape, or the error) and FLOPs a token where it ran."""
        d, n = self.d, self.languages
        attempts: dict[str, Callable[[], nn.Module]] = {
            "as described": lambda: DescribedLayer(d, n, inner=self.inner),
            "its gate mended": lambda: DescribedLayer(d, n, MendedGate, self.inner),
            "corrected": lambda: CorrectedLayer(d, n, inner=self.inner),
        }
        return pd.DataFrame([{"layer": name, **self._run(build())} for name, build in attempts.items()])

    def _run(self, layer: nn.Module) -> dict[str, object]:
        x, lang = self.input()
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                out = layer(x, lang)
        except RuntimeError as error:
            return {"outcome": f"RuntimeError: {str(error).splitlines()[0]}", "FLOPs a token": None}
        shape = "x".join(map(str, out.shape))
        return {"outcome": f"runs, {shape}", "FLOPs a token": counter.get_total_flops() // (self.batch * self.length)}

    def expert_calls(self) -> tuple[int, int]:
        """Experts that one token of the layer with its gate mended runs, and how many it would select."""
        layer, calls = DescribedLayer(self.d, self.languages, MendedGate, self.inner), []
        for expert in layer.experts:
            expert.register_forward_hook(lambda module, args, out: calls.append(1))
        x, lang = self.input()
        with suppress(RuntimeError):
            layer(x[:1, :1], lang[:1])
        return len(calls), CorrectedLayer(self.d, self.languages, inner=self.inner).top_k

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
            config = SparseMoEConfig(self.d, languages, 2, self.inner, "relu")
            gate, expert = 2 * 2 * self.d * languages, config.count().flops - config.parts()["router"].flops
            rows.append(
                {"languages": languages, "as described": gate + languages * expert // 2, "corrected": gate + expert}
            )
        return pd.DataFrame(rows)


def silent_broadcast(d: int = 8, size: int = 4, seed: int = 0) -> tuple[bool, float]:
    """Section 3.3's gate on as many sequences as positions: it runs, and gives position p the language of sequence p.

    Returns:
        Whether it runs, and the largest difference from probabilities with each sequence's own language.
    """
    torch.manual_seed(seed)
    gate = AddedGate(d, 3, size)
    x, lang = torch.randn(size, size, d), torch.arange(size)
    with torch.no_grad():
        wrong = gate(x, lang)
        right = F.softmax(gate.scorer(x + gate.language(lang)[:, None]), dim=-1)
    return wrong.shape == right.shape, float((wrong - right).abs().max())
