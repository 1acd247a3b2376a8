"""Layers that know the language of a sequence, and how it reaches them.

A sequence's language is an id. It is told to every layer that listens by `tell`, or by the argument `lang` of
`MechanismMoeForCausalLM`, and holds until the block ends. A layer that listens and was told nothing refuses to run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .errors import LayerError
from .router import TopKRouter

UNKNOWN = -1
"""Id of a language that the model has no embedding for, or of one that is not known: embeddings give the mean of those
they have, an allocation opens every expert."""


class Listener(nn.Module):
    """A module that needs the language of each sequence.

    Attributes:
        languages: ids are 0 to this number less one, and `UNKNOWN`; lang: `(batch,)` what was told, or `(1,)` for all
            sequences alike, None outside `tell`.
    """

    languages: int
    lang: Tensor | None = None

    def rows_of(self, hidden: Float[Tensor, "... d"]) -> Int[Tensor, " row"]:
        """The language id of every row of `hidden`, whose first axis is the sequence.

        Raises:
            LayerError: nothing was told, or the languages of another number of sequences.
        """
        if self.lang is None:
            raise LayerError(
                "no language was told: run the model inside `tell(model, lang)`, with UNKNOWN where it is not known"
            )
        lang, batch = self.lang.to(hidden.device), hidden.shape[0]
        if len(lang) not in (1, batch):
            raise LayerError(f"{len(lang)} languages were told, the batch has {batch} sequences")
        rows = hidden.shape[:-1].numel()
        return lang.expand(batch).repeat_interleave(rows // max(batch, 1))


def listeners(model: nn.Module) -> list[Listener]:
    """The modules of a model that listen to the language."""
    return [module for module in model.modules() if isinstance(module, Listener)]


@contextmanager
def tell(model: nn.Module, lang: int | Sequence[int] | Tensor) -> Iterator[None]:
    """Tell a model the language of each sequence for the calls inside the block.

    Args:
        lang: `(batch,)` ids, or one id for all sequences; `UNKNOWN` for a language that it has no embedding for.

    Raises:
        LayerError: no layer listens, no id, or an id that the layers do not know.
    """
    ids = torch.atleast_1d(torch.as_tensor(lang, dtype=torch.long))
    heard = listeners(model)
    if not heard or ids.ndim != 1 or not len(ids):
        what = "no layer of the model listens to the language" if not heard else f"languages have shape {ids.shape}"
        raise LayerError(f"{what}: there is nothing to tell")
    fewest, low, high = min(one.languages for one in heard), int(ids.min()), int(ids.max())
    if low < UNKNOWN or high >= fewest:
        raise LayerError(
            f"language ids reach from {low} to {high}, the model knows 0 to {fewest - 1}; use UNKNOWN ({UNKNOWN}) "
            "for others"
        )
    before = [one.lang for one in heard]
    try:
        for one in heard:
            one.lang = ids
        yield
    finally:
        for one, old in zip(heard, before, strict=True):
            one.lang = old


class LanguageRouter(TopKRouter, Listener):
    """A router whose gate sees an embedding of the sequence's language.

    Args:
        languages: languages it has an embedding for.
        signal: `added` to the token, `concatenated` with it, or `task`: the gate sees the language alone, so that all
            tokens of a language share their experts (Kudugunta et al. 2021, arXiv 2110.03742).
        lang_width: width of the embedding; 0 for that of the token, which `added` needs.

    See `TopKRouter` for the others; `LanguageMoEConfig` refuses what cannot be.

    Attributes:
        embedding: `(language, lang_width)`.
    """

    def __init__(
        self,
        d: int,
        num_experts: int,
        top_k: int,
        languages: int,
        signal: str = "added",
        lang_width: int = 0,
        **options,
    ) -> None:
        width = lang_width or d
        super().__init__({"added": d, "concatenated": d + width, "task": width}[signal], num_experts, top_k, **options)
        self.token_width, self.languages, self.signal = d, languages, signal
        self.embedding = nn.Parameter(torch.empty(languages, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As `TopKRouter`; the embedding is normal with variance 1, as wide as a normed token."""
        super().reset_parameters()
        if hasattr(self, "embedding"):
            nn.init.normal_(self.embedding)

    def gate_input(self, hidden: Float[Tensor, "... d"]) -> Float[Tensor, "row gate"]:
        """Token and language of each row, as the signal says."""
        table = torch.cat([self.embedding, self.embedding.mean(0, keepdim=True)])  # the last row answers UNKNOWN
        told = table[self.rows_of(hidden)].to(hidden.dtype)
        rows = hidden.reshape(-1, self.token_width)
        if self.signal == "added":
            return rows + told
        return told if self.signal == "task" else torch.cat([rows, told], -1)
