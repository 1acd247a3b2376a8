"""A model whose routing is edited, as a model of lm-evaluation-harness. Importing this module registers it there."""

from pathlib import Path
from typing import Any

import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from ..trace import attach, from_json
from .lm_eval import refuse_unknown
from .load import ModelError, load_model
from .scoring import plain_decoding


@register_model("mechanism")
class EditedLM(HFLM):
    """`--model mechanism --model_args pretrained=MODEL,edits=FILE`: every pass runs with the edits attached, so that
    the contracts are proven first and the model is left as it was.

    Args:
        pretrained: a committed model's name, a folder, or a hub id, with `@revision` or without.
        edits: file with interventions as JSON (`trace.to_json`); without it routing is only watched.
        device, dtype: see `load_model`; seed: breaks ties of edits.
        more: of the harness's own class `HFLM`, those of `lm_eval.TAKEN`.

    Decoding has no settings of the checkpoint, such as a penalty on repetition; what a task says of it applies.

    Raises:
        ModelError: see `load_model`; the file of edits cannot be read; or an argument that would do nothing.
        TraceError: the model cannot be observed, or cannot carry out an edit.
    """

    def __init__(
        self,
        pretrained: str = "embedded",
        edits: str | None = None,
        device: str | None = "auto",
        dtype: str = "float32",
        seed: int = 0,
        **more: Any,
    ) -> None:
        refuse_unknown(more)
        self.edits, self.seed = _read(edits) if edits else [], seed
        model, tokenizer = load_model(pretrained, device or "auto", dtype, moe=True)
        with attach(model, self.edits, keep=False, seed=seed):
            pass  # what is wrong with the model or the edits is said now
        super().__init__(pretrained=model, tokenizer=tokenizer, **more)

    def _model_call(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with attach(self.model, self.edits, keep=False, seed=self.seed):
            return super()._model_call(*args, **kwargs)

    def _model_generate(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with attach(self.model, self.edits, keep=False, seed=self.seed), plain_decoding(self.model):
            return super()._model_generate(*args, **kwargs)


def _read(path: str) -> list:
    try:
        return from_json(Path(path).read_text("utf-8"))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"no interventions in {path}: {str(error).splitlines()[0]}") from error
