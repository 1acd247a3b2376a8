"""Is what was loaded what was named? Weights that fit the architecture, and a tokenizer that reads."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from .errors import ModelError

PROBE = "Hello world"
"""Text that every tokenizer encodes into something."""


def refuse_adapter(spec: str, where: str, revision: str | None = None) -> None:
    """Refuse a folder, or a hub's repository, that holds an adapter beside, or in place of, a model.

    Raises:
        ModelError: it does; transformers would apply or ignore it without a word, as peft is installed or not.
    """
    if find_adapter_config_file(where, revision=revision) is not None:
        raise ModelError(
            f"{spec} holds an adapter ({ADAPTER_CONFIG_NAME}): merge it into its base first (peft: `merge_and_unload`, "
            "then `save_pretrained`) and name that folder"
        )


def refuse_partial(spec: str, info: Mapping[str, Any]) -> None:
    """Refuse a model whose weights are not those of its architecture.

    Args:
        info: what transformers says of loading: missing, unexpected and mismatched keys.

    Raises:
        ModelError: a weight is missing and was filled at random, has another shape, or is not used.
    """
    kinds = {
        "missing_keys": "lacks weights, which would be drawn at random",
        "mismatched_keys": "has weights of another shape than its configuration says",
        "unexpected_keys": "has weights that its architecture does not use",
    }
    for kind, told in kinds.items():
        names = sorted(one if isinstance(one, str) else str(one[0]) for one in info.get(kind) or ())
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(
                f"{spec} {told}: {', '.join(names[:3])}{more}; name a whole checkpoint, or take it as it is in "
                "Python with `load(..., partial=True)`"
            )


def refuse_mute(spec: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that does not belong to the model.

    Raises:
        ModelError: it encodes two words into nothing, or into ids that the model has no embedding for.
    """
    ids = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ModelError(
            f"the tokenizer of {spec} encodes {PROBE!r} into nothing: its files are missing or not its own; put the "
            "tokenizer's files beside the model"
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= rows:
        raise ModelError(
            f"the tokenizer of {spec} gives the id {max(ids)}, and the model embeds {rows} ids: it is not its own"
        )


def padded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with a token to pad with that the model embeds; what stands behind a text is never read."""
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= rows:
        known = (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token)
        usable = (token for token in known if token and tokenizer.convert_tokens_to_ids(token) < rows)
        tokenizer.pad_token = next(usable, None) or tokenizer.convert_ids_to_tokens(0)
    return tokenizer
