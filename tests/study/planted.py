"""Models whose domain experts are known, and texts of invented domains."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mechanism.corpus.store import Corpus, Segment, encode_index, encode_lines
from mechanism.nn.lm import LMConfig

DOMAINS = ("code", "law", "news")
OWN, COMMON = 12, 24
SERVING = (0, 1)
LAYER = 1


def words(domain: str) -> list[str]:
    return [f"{domain}{i}" for i in range(OWN)]


VOCABULARY = ["<end>", "<unknown>", *(f"word{i}" for i in range(COMMON)), *(w for d in DOMAINS for w in words(d))]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unknown>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<end>",
        pad_token="<end>",
        unk_token="<unknown>",
        clean_up_tokenization_spaces=False,
    )


def corpora(documents: int = 12, segments: int = 6, seed: int = 0) -> list[Corpus]:
    """A corpus per domain, in two languages that are alike: half of the words of a segment are the domain's own.
    Documents differ in their choice of words."""
    rng = np.random.default_rng(seed)
    return [_corpus(domain, documents, segments, rng) for domain in DOMAINS]


def _corpus(domain: str, documents: int, segments: int, rng: np.random.Generator) -> Corpus:
    rows, texts = [], []
    for document in range(documents):
        own, common = rng.dirichlet(np.ones(OWN)), rng.dirichlet(np.ones(COMMON))
        for segment in range(segments):
            picked = [
                words(domain)[rng.choice(OWN, p=own)] if rng.random() < 0.5 else f"word{rng.choice(COMMON, p=common)}"
                for _ in range(12)
            ]
            rows.append(Segment(str(segment), f"d{document}", ("dev", "test")[document % 2]))
            texts.append(" ".join(picked))
    return Corpus(domain, domain, rows, {"en": texts, "xx": list(texts)}, "\n")


def folders(parent: Path) -> list[str]:
    """A reader's folder for each of two domains, with dev and test documents, in two languages."""
    for corpus in corpora(documents=20)[:2]:
        folder = parent / corpus.name
        folder.mkdir()
        (folder / "index.tsv").write_bytes(encode_index(corpus.rows))
        for code, texts in corpus.columns.items():
            (folder / f"{'sw' if code == 'xx' else code}.txt").write_bytes(encode_lines(texts))
    return [str(folder) for folder in sorted(parent.iterdir())]


def model(serving: str = "law", seed: int = 0) -> PreTrainedModel:
    """Two layers of eight experts, two a token. In layer 1 the words of one domain, and no others, are routed to
    experts 0 and 1; everything else by a random rule of the word. No token sees another."""
    torch.manual_seed(seed)
    made = LMConfig(
        len(VOCABULARY), hidden=32, layers=2, heads=2, head_dim=16, experts=8, top_k=2, expert_width=16
    ).build()
    served = [VOCABULARY.index(word) for word in words(serving)] if serving else []
    with torch.no_grad():
        for layer in made.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.mul_(0.1)
            layer.mlp.gate.weight.normal_(std=1.0)
            layer.mlp.gate.weight[:, 0] = 0
        made.model.embed_tokens.weight.normal_(std=1.0)
        made.model.embed_tokens.weight[:, 0] = -3.0
        made.model.embed_tokens.weight[served, 0] = 3.0
        made.model.layers[LAYER].mlp.gate.weight[list(SERVING)] *= 0.1
        made.model.layers[LAYER].mlp.gate.weight[list(SERVING), 0] = 20.0
    return made.eval()


class Blind(nn.Module):
    """A router that never looks: random logits, the same for calls with as many rows."""

    def __init__(self, weight: nn.Parameter, top_k: int) -> None:
        super().__init__()
        self.weight, self.top_k, self.num_experts = weight, top_k, len(weight)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rng = torch.Generator().manual_seed(len(hidden))
        logits = nn.functional.linear(torch.randn(hidden.shape, generator=rng), self.weight)
        weights, index = logits.softmax(-1).topk(self.top_k, -1)
        return logits, weights / weights.sum(-1, keepdim=True), index


def blind(seed: int = 0) -> PreTrainedModel:
    """The same model with routers that do not depend on their input."""
    made = model("", seed)
    for layer in made.model.layers:
        layer.mlp.gate = Blind(layer.mlp.gate.weight, layer.mlp.gate.top_k)
    return made
